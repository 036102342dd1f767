"""The version is the same everywhere."""

from __future__ import annotations

import re
import tomllib
from datetime import date

import pytest

from server.__main__ import main
from tests.project.documents.pages import ROOT

VERSION: str = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]


def test_the_changelog_begins_with_it() -> None:
    text = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    found = re.findall(r"^## \[(\d[^\]]*)\] - (\S+)$", text, re.MULTILINE)
    assert found[0][0] == VERSION
    assert date.fromisoformat(found[0][1]) >= date(2026, 11, 1)


def test_the_command_says_it_with_the_commit(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    shown = capsys.readouterr().out
    assert re.match(r"\d+\.\d+\.\d+( \(commit [0-9a-f]{40}(-dirty)?\))?$", shown.strip())
