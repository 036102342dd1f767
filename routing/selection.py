"""The `X-OneSeek-Adapter` header: one adapter, `base`, `auto`, or a weighted blend.

The grammar is `name` or `name=weight,name=weight,…`; whether a name exists is the catalogue's to say.
"""

from __future__ import annotations

import re
from typing import Literal

Blend = tuple[tuple[str, float], ...]
"""Adapter names as asked for, with their weights; empty is the base."""

HEADER = "X-OneSeek-Adapter"
AUTO, BASE = "auto", "base"
MAX_LENGTH, MAX_TERMS, MAX_WEIGHT = 512, 8, 4.0

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._/-]*(?:@[A-Za-z0-9][A-Za-z0-9._-]*)?")
_WEIGHT = re.compile(r"[+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_GRAMMAR = "give an alias, alias@version, 'base', 'auto', or a blend such as 'sv=0.7,en=0.3'"


class SelectionError(ValueError):
    """A header that cannot be read. `field`, `value` and `remedy` are parts of the message."""

    def __init__(self, value: str, remedy: str) -> None:
        self.field = HEADER
        self.value = value if len(value) <= 80 else f"{value[:77]}…"
        self.remedy = remedy
        super().__init__(f"{self.field} is {self.value!r}: {remedy}")


def parse_selection(header: str) -> Blend | Literal["auto"]:
    """The adapters that a header asks for; raises `SelectionError`."""
    text = header.strip()
    if len(header) > MAX_LENGTH:
        raise SelectionError(header, f"it has {len(header)} characters, and may have {MAX_LENGTH}")
    if not text:
        raise SelectionError(header, f"{_GRAMMAR}; or leave the header out")
    if text == AUTO:
        return AUTO
    if text == BASE:
        return ()
    terms = [_term(header, term.strip()) for term in text.split(",")]
    if len(terms) > MAX_TERMS:
        raise SelectionError(header, f"a blend of {len(terms)} terms; at most {MAX_TERMS} are possible")
    if len(terms) > 1 and any(weight is None for _, weight in terms):
        raise SelectionError(header, "each term of a blend needs a weight, such as 'sv=0.7,en=0.3'")
    names = [name for name, _ in terms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise SelectionError(header, f"it names {', '.join(twice)} more than once; add their weights up")
    if taken := sorted({AUTO, BASE}.intersection(names)):
        raise SelectionError(
            header, f"{taken[0]!r} stands alone; a blend weighs adapters, on top of the base"
        )
    return tuple((name, 1.0 if weight is None else weight) for name, weight in terms)


def _term(header: str, term: str) -> tuple[str, float | None]:
    name, equals, number = (part.strip() for part in term.partition("="))
    if _NAME.fullmatch(name) is None:
        raise SelectionError(header, f"{name[:40]!r} is no adapter's name; {_GRAMMAR}")
    if not equals:
        return name, None
    if _WEIGHT.fullmatch(number) is None or not 0 < abs(float(number)) < MAX_WEIGHT:
        raise SelectionError(
            header, f"the weight of {name[:40]!r} is {number[:40]!r}; give a number between -4 and 4, not 0"
        )
    return name, float(number)
