"""Checks that a client's JSON schema is within limits, before it becomes a grammar."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, cast

from server.grammar.text import GrammarRefusedError

MAX_DEPTH = 64
"""Maximum number of levels that a schema may be nested. llguidance supports 128 levels, including its own."""
MAX_COUNT = 10_000
"""Maximum value of keywords that count items, properties or characters, such as `minItems`."""

_COUNTS = ("minItems", "maxItems", "minProperties", "maxProperties", "minLength", "maxLength")
_DATA = ("const", "enum", "default", "examples")
"""Keywords of JSON Schema that contain plain values, not schemas."""


def check_schema(schema: Mapping[str, Any]) -> None:
    """Check that a client's JSON schema uses only what the server supports.

    Raises `GrammarRefusedError`, which names the keyword, if a part of the schema is not supported or too
    large.
    """
    if "x-guidance" in schema:
        raise GrammarRefusedError("the schema's keyword x-guidance is reserved for the server; remove it")
    # In a schema's `properties`, the names of keywords are names of properties.
    pending: list[tuple[object, int, bool]] = [(schema, 1, True)]
    while pending:
        value, depth, keywords = pending.pop()
        if depth > MAX_DEPTH:
            raise GrammarRefusedError(f"the schema is nested deeper than {MAX_DEPTH} levels; simplify it")
        if isinstance(value, Mapping) and keywords:
            _check_keywords(cast("Mapping[str, object]", value))
        pending += [(item, depth + 1, known) for item, known in _inside(value, keywords)]


def _check_keywords(schema: Mapping[str, object]) -> None:
    for name in ("$ref", "$dynamicRef"):
        target = schema.get(name)
        if isinstance(target, str) and not target.startswith("#"):
            raise GrammarRefusedError(
                f"the schema's {name} {target[:60]!r} points outside the schema; move its target into $defs"
            )
    for name in _COUNTS:
        count = schema.get(name)
        if isinstance(count, int | float) and count > MAX_COUNT:
            raise GrammarRefusedError(f"the schema's {name} is {count!s:.20}; the maximum is {MAX_COUNT}")


def _inside(value: object, keywords: bool) -> Iterator[tuple[object, bool]]:
    """Yield each value inside `value`, with True if the value's keys are keywords of JSON Schema, and False
    if they are names of properties or plain data.
    """
    if isinstance(value, Mapping):
        for key, item in cast("Mapping[str, object]", value).items():
            named = keywords and key in ("properties", "patternProperties", "$defs", "definitions")
            yield item, not named and not (keywords and key in _DATA)
    elif isinstance(value, list | tuple):
        yield from ((item, keywords) for item in cast("Sequence[object]", value))
