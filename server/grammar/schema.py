"""Bounds on a client's JSON schema, before it becomes a grammar; a refusal names the keyword."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from server.grammar.text import GrammarRefusedError

MAX_DEPTH = 64
"""Objects and arrays within each other; llguidance reads up to 128 with its own around them."""
MAX_COUNT = 10_000
"""Most that a schema may ask for of items, properties or characters."""

_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength")
_DATA = ("const", "enum", "default", "examples")
"""Keywords that hold values, not schemas."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Raise `GrammarRefusedError`, naming the place, for what no schema of a request may hold."""
    if "x-guidance" in schema:
        raise GrammarRefusedError("x-guidance is the server's to set; leave it out")
    # In a schema's `properties`, the names of keywords are names of properties.
    pending: list[tuple[object, int, bool]] = [(schema, 1, True)]
    while pending:
        value, depth, keywords = pending.pop()
        if depth > MAX_DEPTH:
            raise GrammarRefusedError(f"it is nested more than {MAX_DEPTH} deep")
        if isinstance(value, Mapping) and keywords:
            _check_keywords(cast("Mapping[str, object]", value))
        pending += [(item, depth + 1, known) for item, known in _inside(value, keywords)]


def _check_keywords(schema: Mapping[str, object]) -> None:
    for name in ("$ref", "$dynamicRef"):
        target = schema.get(name)
        if isinstance(target, str) and not target.startswith("#"):
            raise GrammarRefusedError(
                f"{name} {target[:60]!r} points outside of the schema; put it under $defs"
            )
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, int | float) and count > MAX_COUNT:
            raise GrammarRefusedError(f"{name} is {count!s:.20}; at most {MAX_COUNT} is served")


def _inside(value: object, keywords: bool) -> Iterator[tuple[object, bool]]:
    """What `value` holds, each with whether its keys are keywords."""
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            named = keywords and key in ("properties", "patternProperties", "$defs", "definitions")
            yield item, not named and not (keywords and key in _DATA)
    elif isinstance(value, list | tuple):
        yield from ((item, keywords) for item in cast("Sequence[object]", value))
