"""What may import what, and that breaking it is noticed."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("server", "adapters", "routing", "bench")
LINT = "from importlinter.cli import lint_imports_command; lint_imports_command()"
UPWARD = [
    ("server.jobs.requests", "server.cli.flags"),
    ("server.asgi.turns", "server.jobs.requests"),
    ("server.api.rendering.frames", "server.asgi.turns"),
    ("server.serving.fan_in", "server.api.rendering.frames"),
    ("server.rollout.outcomes", "server.serving.fan_in"),
    ("server.live.roots", "server.rollout.outcomes"),
    ("server.engines.base", "server.live.roots"),
    ("server.grammar.schema", "server.engines.base"),
    ("server.text.pieces", "server.grammar.schema"),
    ("server.metrics.pace", "server.text.pieces"),
    ("server.config.values", "server.metrics.pace"),
    ("server.errors", "server.config.values"),
    ("server.request", "server.errors"),
]
"""A module of each layer, and one of the layer above that it must not import."""


def lint(folder: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", LINT, "--no-cache"],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    for package in PACKAGES:
        shutil.copytree(
            ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("__pycache__", "*.safetensors")
        )
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    return tmp_path


def test_the_contracts_are_kept() -> None:
    done = lint(ROOT)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("file", "line"),
    [
        ("adapters/registry/served.py", "import routing.route"),
        ("adapters/files/atomic.py", "import adapters.home"),
        ("adapters/numerals.py", "import adapters.files.atomic"),
        ("routing/route.py", "import server.request"),
        ("server/config/settings.py", "import torch"),
        ("routing/route.py", "import transformers"),
        ("bench/load/closed_loop.py", "import server.request"),
        ("server/engines/embedded/scheduling/scheduler.py", "import numpy"),
    ],
)
def test_breaking_one_is_noticed(file: str, line: str, copy: Path) -> None:
    append(copy / file, line)
    done = lint(copy)
    assert done.returncode == 1
    assert "BROKEN" in done.stdout


def test_every_layer_of_the_server_is_held(copy: Path) -> None:
    for lower, upper in UPWARD:
        append(copy / f"{lower.replace('.', '/')}.py", f"import {upper}")
    done = lint(copy)
    assert done.returncode == 1
    for lower, upper in UPWARD:
        assert re.search(rf"{re.escape(lower)} -> {re.escape(upper)} ", done.stdout), f"{lower} -> {upper}"


def test_a_new_folder_of_the_server_must_have_a_layer(copy: Path) -> None:
    (copy / "server" / "misplaced").mkdir()
    (copy / "server" / "misplaced" / "__init__.py").touch()
    done = lint(copy)
    assert done.returncode == 1
    assert "misplaced" in done.stdout


def append(file: Path, line: str) -> None:
    with file.open("a", encoding="utf-8") as module:
        module.write(f"\n{line}\n")
