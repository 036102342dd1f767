"""Which OneSeek this is."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version


def oneseek_version() -> str:
    """The installed version, or `0+source` where the code runs from a folder that was never installed."""
    try:
        return version("oneseek")
    except PackageNotFoundError:
        return "0+source"
