"""Parse the names of adapters or bases in the header `X-OneSeek-Adapter` and in the body's `model`.

A selection is an alias, `alias@version`, a base's name, `base`, `auto` or `oneseek` (the same as `auto`). If
a server has several bases, the prefix `BASE:` can choose one. A selection can also be a blend
`name=weight,name=weight,…`. Case does not matter. This module does not check if a name exists.
"""

from __future__ import annotations

import re
from typing import Literal

Blend = tuple[tuple[str, float], ...]
"""Requested adapter names with their weights; empty if the base is requested alone."""

HEADER = "X-OneSeek-Adapter"
AUTO, BASE = "auto", "base"
AUTOMATIC_MODEL = "oneseek"
"""Model name that means `auto`: the server chooses the adapter."""
MAX_LENGTH, MAX_TERMS, MAX_WEIGHT = 512, 8, 4.0

_NAME = re.compile(
    r"(?:[A-Za-z0-9][A-Za-z0-9._/-]*:)?[A-Za-z0-9][A-Za-z0-9._/-]*(?:@[A-Za-z0-9][A-Za-z0-9._-]*)?"
)
_WEIGHT = re.compile(r"[+-]?(?:[0-9]{1,6}(?:\.[0-9]{0,12})?|\.[0-9]{1,12})")
_AUTOMATIC = frozenset({AUTO, AUTOMATIC_MODEL})
_GRAMMAR = "give an alias, alias@version, 'base', 'auto', or a blend such as 'sv=0.7,en=0.3'"


class SelectionError(ValueError):
    """A selection of adapters is malformed. `field`, `value` and `remedy` are parts of the message."""

    def __init__(self, value: str, remedy: str, field: str = HEADER) -> None:
        self.field = field
        self.value = value if len(value) <= 80 else f"{value[:77]}…"
        self.remedy = remedy
        super().__init__(f"{self.field} is {self.value!r}: {remedy}")


def parse_selection(asked: str, field: str = HEADER) -> Blend | Literal["auto"]:
    """Parse the selection `asked`. Returns `auto`, adapters with weights, or an empty blend for `base`.

    The name of a base is returned like that of an adapter. Raises `SelectionError`, whose message names
    `field`.
    """
    try:
        return _parse(asked)
    except ValueError as error:
        raise SelectionError(asked, str(error), field) from None


def split_base(name: str) -> tuple[str | None, str]:
    """Split `base:adapter` into the base's name and the adapter's. The base is None if `name`
    has no colon.
    """
    base, colon, rest = name.strip().partition(":")
    return (base, rest) if colon else (None, base)


def first_name(asked: str) -> str:
    """Return the first name in `asked`, without its weight. `asked` must be well formed."""
    return asked.partition(",")[0].partition("=")[0].strip()


def is_automatic(name: str) -> bool:
    """Return True for a name that leaves the choice to the server, such as `auto`."""
    return name.strip().lower() in _AUTOMATIC


def _parse(asked: str) -> Blend | Literal["auto"]:
    text = asked.strip()
    if len(asked) > MAX_LENGTH:
        raise ValueError(
            f"the adapter's name has {len(asked)} characters; the limit is {MAX_LENGTH}: shorten the name"
        )
    if not text:
        raise ValueError(f"the adapter's name is empty: {_GRAMMAR}; or leave the header out")
    if is_automatic(text):
        return AUTO
    if text.lower() == BASE:
        return ()
    terms = [_term(term.strip()) for term in text.split(",")]
    if len(terms) > MAX_TERMS:
        raise ValueError(f"the blend has {len(terms)} adapters; give at most {MAX_TERMS}")
    if len(terms) > 1 and any(weight is None for _, weight in terms):
        raise ValueError("each adapter in a blend needs a weight, such as 'sv=0.7,en=0.3'")
    names = [name.lower() for name, _ in terms]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"the blend names {', '.join(twice)} more than once; name each once, with its total weight"
        )
    if taken := sorted({BASE, *_AUTOMATIC}.intersection(names)):
        raise ValueError(stands_alone(taken[0]))
    return tuple((name, 1.0 if weight is None else weight) for name, weight in terms)


def stands_alone(name: str) -> str:
    """Return the error message for a name such as `auto` or `base`, which cannot be part of a blend."""
    return f"{name!r} must be given alone, because a blend can combine adapters only"


def _term(term: str) -> tuple[str, float | None]:
    name, equals, number = (part.strip() for part in term.partition("="))
    if _NAME.fullmatch(name) is None:
        raise ValueError(f"{name[:40]!r} is not the name of an adapter; {_GRAMMAR}")
    if not equals:
        return name, None
    if _WEIGHT.fullmatch(number) is None or not 0 < abs(float(number)) < MAX_WEIGHT:
        raise ValueError(
            f"the weight of {name[:40]!r} is {number[:40]!r}; give a number between -4 and 4, but not 0"
        )
    return name, float(number)
