"""Checks that a client's JSON schema is valid: each keyword's value has the type that the standard requires.

Follows draft 2020-12, and accepts older spellings that are still in use, such as `items` as a list. An empty
`allOf` and lists with repeated values are accepted, since they have no effect. Keywords that are missing from
the table `KEYWORDS`, such as annotations, may have any value.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from adapters.errors import format_value
from server.grammar.text import GrammarRefusedError

TYPES = ("string", "number", "integer", "boolean", "array", "object", "null")
_SHOWN = 64
"""Maximum characters of a property's name that are shown in the path of an error."""


def _is_schema(value: object) -> bool:
    return isinstance(value, Mapping | bool)


def _is_schema_map(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_schema, cast("Mapping[str, object]", value).values()))


def _is_schema_list(value: object) -> bool:
    return isinstance(value, list) and all(map(_is_schema, cast("list[object]", value)))


def _is_full_list(value: object) -> bool:
    return bool(value) and _is_schema_list(value)


def _is_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(item, str) for item in cast("list[object]", value))


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return _is_number(value) and cast("float", value) >= 0 and cast("float", value) % 1 == 0


def _is_type(value: object) -> bool:
    if isinstance(value, str):
        return value in TYPES
    return _is_texts(value) and bool(value) and not set(cast("list[str]", value)) - set(TYPES)


def _is_texts_map(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_is_texts, cast("Mapping[str, object]", value).values()))


@dataclass(frozen=True, slots=True)
class KeywordKind:
    """A kind of value that a JSON Schema keyword can have, such as a list of strings."""

    wanted: str
    """Description of the kind of value, such as `a list of strings`, for error messages."""
    accepts: Callable[[Any], bool]


_SCHEMA = KeywordKind("a schema (an object, true or false)", _is_schema)
_SCHEMA_MAP = KeywordKind("an object of schemas", _is_schema_map)
_SCHEMA_LIST = KeywordKind("a list of schemas", _is_schema_list)
_FULL_LIST = KeywordKind("a list of at least one schema", _is_full_list)
_ITEMS = KeywordKind("a schema or a list of schemas", lambda v: _is_schema(v) or _is_full_list(v))
_TEXT = KeywordKind("a string", lambda value: isinstance(value, str))
_COUNT = KeywordKind("a whole number of at least 0", _is_count)
_NUMBER = KeywordKind("a number", _is_number)

KEYWORDS: Mapping[str, KeywordKind] = {
    "type": KeywordKind(f"one of {', '.join(TYPES)}, or a list of them", _is_type),
    "enum": KeywordKind("a list", lambda value: isinstance(value, list)),
    "required": KeywordKind("a list of strings", _is_texts),
    "dependentRequired": KeywordKind("an object of lists of strings", _is_texts_map),
    "uniqueItems": KeywordKind("true or false", lambda value: isinstance(value, bool)),
    "multipleOf": KeywordKind("a number above 0", lambda value: _is_number(value) and value > 0),
    "items": _ITEMS,
    "allOf": _SCHEMA_LIST,
    **dict.fromkeys(("anyOf", "oneOf", "prefixItems"), _FULL_LIST),
    **dict.fromkeys(
        ("properties", "patternProperties", "$defs", "definitions", "dependentSchemas"), _SCHEMA_MAP
    ),
    **dict.fromkeys(
        (
            "additionalProperties", "unevaluatedProperties", "propertyNames", "additionalItems",
            "unevaluatedItems", "contains", "not", "if", "then", "else",
        ),
        _SCHEMA,
    ),
    **dict.fromkeys(("pattern", "format", "$ref", "$schema", "$anchor", "$id"), _TEXT),
    **dict.fromkeys(
        (
            "minLength", "maxLength", "minItems", "maxItems", "minProperties", "maxProperties",
            "minContains", "maxContains",
        ),
        _COUNT,
    ),
    **dict.fromkeys(("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum"), _NUMBER),
}  # fmt: skip


def check_validity(schema: Mapping[str, Any]) -> None:
    """Check the values of all keywords in a client's JSON schema.

    Raises `GrammarRefusedError`, with the path in the schema, for a keyword whose value has the wrong type.
    Takes time proportional to the size of the schema.
    """
    pending: deque[tuple[Mapping[str, Any], str]] = deque([(schema, "")])
    while pending:
        value, place = pending.popleft()
        for key, item in value.items():
            kind = KEYWORDS.get(key)
            if kind is None:
                continue
            if not kind.accepts(item):
                where = f"{place}{key}"
                raise GrammarRefusedError(
                    f"the schema's {where} is {format_value(item)}; it must be {kind.wanted}", where
                )
            pending += _inside(f"{place}{key}", kind, item)


def _inside(place: str, kind: KeywordKind, value: Any) -> Iterator[tuple[Mapping[str, Any], str]]:
    """Yield the schemas that a keyword's value contains, each with its path in the whole schema. Schemas that
    are just true or false are left out.
    """
    if kind is _SCHEMA_MAP:
        inside = cast("Mapping[str, object]", value)
        found = [(item, f"{place}.{name[:_SHOWN]}.") for name, item in inside.items()]
    elif isinstance(value, list) and kind in (_SCHEMA_LIST, _FULL_LIST, _ITEMS):
        items = cast("Sequence[object]", value)
        found = [(item, f"{place}[{index}].") for index, item in enumerate(items)]
    elif kind in (_SCHEMA, _ITEMS):
        found = [(value, f"{place}.")]
    else:
        return
    yield from ((item, at) for item, at in found if isinstance(item, Mapping))
