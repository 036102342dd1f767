"""Which OneSeek this is."""

from __future__ import annotations

from adapters.version import commit, oneseek_version

__all__ = ["oneseek_version", "version_line"]


def version_line() -> str:
    """The version, and the commit if the code runs from a checkout: `0.1.0 (commit 5c0ffee…)`."""
    found = commit()
    return oneseek_version() if found is None else f"{oneseek_version()} (commit {found})"
