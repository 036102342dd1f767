"""The environment of a command line that nobody has set anything for."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


def start_afresh(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    """Take every setting out of the environment, and make `home` OneSeek's home."""
    for name in os.environ:
        if name.startswith("ONESEEK_"):
            monkeypatch.delenv(name)
    monkeypatch.setenv("ONESEEK_HOME", str(home))
