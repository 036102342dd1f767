"""Folders of the mini base model and the adapters that ship with OneSeek."""

from __future__ import annotations

from pathlib import Path

WEIGHTS = Path(__file__).parent / "weights"
BASE = WEIGHTS / "base"
ADAPTERS = (WEIGHTS / "oneseek-mini-en", WEIGHTS / "oneseek-mini-sv")
