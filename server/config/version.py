"""OneSeek's version, for `oneseek --version` and log lines."""

from __future__ import annotations

from adapters.version import commit, oneseek_version

__all__ = ["oneseek_version", "version_line"]


def version_line() -> str:
    """OneSeek's version. If the code runs from a checkout, with the commit: `0.2.0 (commit 5c0ffee…)`."""
    found = commit()
    return oneseek_version() if found is None else f"{oneseek_version()} (commit {found})"
