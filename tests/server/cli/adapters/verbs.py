"""`oneseek adapters` in this process, and what it prints."""

from __future__ import annotations

import json
from typing import Any

import pytest

from server.__main__ import main

Out = pytest.CaptureFixture[str]


def run(capsys: Out, *arguments: str) -> str:
    """The last line of what a verb prints."""
    assert main(["adapters", *arguments]) == 0
    captured = capsys.readouterr()
    said = [line for line in captured.err.splitlines() if "base digest" not in line]
    assert said == []
    return captured.out.splitlines()[-1]


def told(capsys: Out, *arguments: str) -> Any:
    assert main(["adapters", *arguments, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def refused(capsys: Out, *arguments: str, code: int = 1) -> str:
    assert main(["adapters", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err.count("\n") == 1
    return captured.err


def active(capsys: Out) -> list[str]:
    return [item["name"] for item in told(capsys, "list")["adapters"] if item["active"]]
