"""Which OneSeek this is."""

from __future__ import annotations

from adapters.version import oneseek_version

__all__ = ["oneseek_version"]
