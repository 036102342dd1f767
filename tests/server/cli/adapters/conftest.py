"""An installation, and adapters to add to it."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from tests.server.cli.adapters.verbs import Out, run
from tests.server.surroundings import start_afresh


@pytest.fixture
def voices(tiny_adapters: dict[str, Path]) -> dict[str, Path]:
    return tiny_adapters


@pytest.fixture
def home(tmp_path: Path, tiny_base: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An installation with a base and an empty registry; the working directory is in it."""
    shutil.copytree(tiny_base, tmp_path / "root" / "models" / "mistral-7b-instruct")
    start_afresh(monkeypatch, tmp_path / "home")
    monkeypatch.chdir(tmp_path / "root")
    return tmp_path / "home"


@pytest.fixture
def filled(home: Path, voices: dict[str, Path], capsys: Out) -> Path:
    """With v1.1, active, and v1.2 of `zero`."""
    for version, voice in (("v1.1", "en"), ("v1.2", "sv")):
        run(capsys, "add", str(voices[voice]), "--alias", "zero", "--version", version, "--language", "sv")
    return home
