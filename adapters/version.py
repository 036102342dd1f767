"""Which code is running: the installed version, and the git commit if it runs from a checkout."""

from __future__ import annotations

import subprocess
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_ROOT = Path(__file__).resolve().parents[1]
_GIT_SECONDS = 5


def oneseek_version() -> str:
    """Return the installed version, or `0+source` if the code was never installed."""
    try:
        return version("oneseek")
    except PackageNotFoundError:
        return "0+source"


@cache
def commit(root: Path = _ROOT) -> str | None:
    """Return the commit checked out at `root`, with `-dirty` if files differ. None if `root` is not a
    checkout.
    """
    if not (root / ".git").exists():
        return None
    git = ["git", "--no-optional-locks", "-C", str(root)]
    command = [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_GIT_SECONDS, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None
