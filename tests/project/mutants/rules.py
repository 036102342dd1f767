"""The rules of a server under attack, as `rules.toml` lists them: each with its code and its test."""

from __future__ import annotations

import tomllib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

ROOT = Path(__file__).resolve().parents[3]
FILE = Path(__file__).with_name("rules.toml")


@dataclass(frozen=True, slots=True, kw_only=True)
class Rule:
    """One rule, and how to take it out."""

    name: str
    file: str
    """Relative to the repository."""
    find: str
    """The text that holds the rule; it occurs once in the file."""
    replace: str
    """What takes its place: the code without the rule."""
    tests: tuple[str, ...]
    """pytest's node ids; at least one of them fails without the rule."""

    def taken_out(self, text: str) -> str:
        """The file's text without the rule. Raises `ValueError` unless `find` occurs exactly once."""
        if text.count(self.find) != 1:
            raise ValueError(
                f"{self.name}: found {text.count(self.find)} times in {self.file}: {self.find!r}"
            )
        return text.replace(self.find, self.replace)


def read_rules() -> list[Rule]:
    """Every rule, in the file's order."""
    listed: list[dict[str, Any]] = tomllib.loads(FILE.read_text(encoding="utf-8"))["rule"]
    return [msgspec.convert(entry, Rule) for entry in listed]
