"""A small template language for paraphrases: `(a|b|)` chooses one alternative, `{name}` a word from a list.

Alternatives nest and may be empty. A backslash makes the next character literal. Templates are parsed only
once.
"""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

FillSlot = Callable[[random.Random], str]


@dataclass(frozen=True, slots=True)
class Slot:
    """A place for an entry of the list `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Alternatives:
    """A place for one of several sequences."""

    options: tuple[Sequence_, ...]


TemplatePart = str | Slot | Alternatives
Sequence_ = tuple[TemplatePart, ...]


def _parse(text: str, start: int, depth: int) -> tuple[tuple[Sequence_, ...], int]:
    """Return the alternatives from `start` to the closing bracket (or the end, at depth 0), and where they
    end.
    """
    options: list[Sequence_] = []
    parts: list[TemplatePart] = []
    literal: list[str] = []

    def flush() -> None:
        if literal:
            parts.append("".join(literal))
            literal.clear()

    at = start
    while at < len(text):
        char = text[at]
        if char == "\\" and at + 1 < len(text):
            literal.append(text[at + 1])
            at += 2
            continue
        if char == "(":
            flush()
            inner, at = _parse(text, at + 1, depth + 1)
            parts.append(Alternatives(inner))
            continue
        if char == "{":
            flush()
            end = text.index("}", at)
            parts.append(Slot(text[at + 1 : end]))
            at = end + 1
            continue
        if char == "|":
            flush()
            options.append(tuple(parts))
            parts = []
        elif char == ")" and depth:
            flush()
            return (*options, tuple(parts)), at + 1
        else:
            literal.append(char)
        at += 1
    if depth:
        raise ValueError(f"template {text!r}: a bracket is opened but never closed")
    flush()
    return (*options, tuple(parts)), at


@cache
def parse_template(template: str) -> tuple[Sequence_, ...]:
    """Parse a template. A bar outside all brackets separates alternatives too."""
    return _parse(template, 0, 0)[0]


def expand(template: str, rng: random.Random, fills: Mapping[str, FillSlot]) -> str:
    """Draw one text from `template`, with slots filled from `fills`."""

    def draw(options: Sequence[Sequence_]) -> str:
        return "".join(place(part) for part in rng.choice(options))

    def place(part: TemplatePart) -> str:
        if isinstance(part, str):
            return part
        if isinstance(part, Slot):
            if part.name not in fills:
                raise ValueError(f"template {template!r}: there is no list {part.name!r}")
            return expand(fills[part.name](rng), rng, fills)
        return draw(part.options)

    return draw(parse_template(template))


def pattern(template: str, lists: Mapping[str, str]) -> str:
    """Return a regular expression for every text of `template`. `lists` maps a slot to an expression."""

    def sequence(parts: Sequence_) -> str:
        return "".join(piece(part) for part in parts)

    def piece(part: TemplatePart) -> str:
        if isinstance(part, str):
            return re.escape(part)
        if isinstance(part, Slot):
            return lists.get(part.name, ".+")
        return "(?:" + "|".join(sequence(option) for option in part.options) + ")"

    return "(?:" + "|".join(sequence(option) for option in parse_template(template)) + ")"
