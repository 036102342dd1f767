"""A small template language for paraphrases of questions: `(a|b|)` chooses one alternative, `{name}` a random
word from the list `name`.

Alternatives may be nested or empty. A backslash makes the next character literal. Parsed templates are
cached.
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
    """A slot in a template, `{name}`. It is replaced by a random entry of the word list `name`."""

    name: str


@dataclass(frozen=True, slots=True)
class Alternatives:
    """A group of alternatives in a template, `(a|b|)`. It is replaced by one of them at random."""

    options: tuple[Sequence_, ...]


TemplatePart = str | Slot | Alternatives
Sequence_ = tuple[TemplatePart, ...]


def _parse(text: str, start: int, depth: int) -> tuple[tuple[Sequence_, ...], int]:
    """Parse the alternatives from position `start` to the closing bracket, or to the end of the text at depth
    0. Return the alternatives and the position after them.
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
        raise ValueError(f"template {text!r}: a bracket is opened but never closed; add the closing bracket")
    flush()
    return (*options, tuple(parts)), at


@cache
def parse_template(template: str) -> tuple[Sequence_, ...]:
    """Parse a template into its alternatives. A bar outside all brackets also separates alternatives."""
    return _parse(template, 0, 0)[0]


def expand(template: str, rng: random.Random, fills: Mapping[str, FillSlot]) -> str:
    """Return a random text of `template`. `fills` maps the name of each slot to a function that draws a word
    for it.
    """

    def draw(options: Sequence[Sequence_]) -> str:
        return "".join(place(part) for part in rng.choice(options))

    def place(part: TemplatePart) -> str:
        if isinstance(part, str):
            return part
        if isinstance(part, Slot):
            if part.name not in fills:
                raise ValueError(
                    f"template {template!r}: the word list {part.name!r} does not exist; add it to lists.txt"
                )
            return expand(fills[part.name](rng), rng, fills)
        return draw(part.options)

    return draw(parse_template(template))


def pattern(template: str, lists: Mapping[str, str]) -> str:
    """Return a regular expression that matches every text of `template`. `lists` maps the name of a slot to
    an expression for its words; any other slot matches any text.
    """

    def sequence(parts: Sequence_) -> str:
        return "".join(piece(part) for part in parts)

    def piece(part: TemplatePart) -> str:
        if isinstance(part, str):
            return re.escape(part)
        if isinstance(part, Slot):
            return lists.get(part.name, ".+")
        return "(?:" + "|".join(sequence(option) for option in part.options) + ")"

    return "(?:" + "|".join(sequence(option) for option in parse_template(template)) + ")"
