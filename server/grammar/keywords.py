"""Tables of JSON Schema's keywords: which of them contain schemas, and with which values they have no
effect.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast

import msgspec

SCHEMAS = frozenset(
    {"additionalProperties", "additionalItems", "items", "unevaluatedItems", "unevaluatedProperties"}
)
"""Keywords of JSON Schema whose value is a schema."""
SCHEMA_MAPS = frozenset({"properties", "patternProperties", "$defs", "definitions"})
SCHEMA_LISTS = frozenset({"allOf", "anyOf", "oneOf", "items", "prefixItems"})
ANNOTATIONS = frozenset(
    {
        "title", "description", "default", "examples", "example", "deprecated", "readOnly", "writeOnly",
        "$comment", "$schema", "$id", "$anchor", "$defs", "definitions", "discriminator",
    }
)  # fmt: skip
"""Keywords of JSON Schema that do not restrict the values that match."""

FORMATS = frozenset(
    {
        "date-time", "date", "time", "duration", "email", "hostname", "ipv4", "ipv6", "uri", "uuid",
    }
)  # fmt: skip
"""Values of the keyword `format` that llguidance enforces. Other formats only describe a value, as in JSON
Schema.
"""

_UUID = "^[0-9a-f]{{8}}-[0-9a-f]{{4}}-{}[0-9a-f]{{3}}-[89ab][0-9a-f]{{3}}-[0-9a-f]{{12}}$"
_PATTERNS = {
    # pydantic's Decimal: the look-ahead asks for a digit.
    r"^(?!^[-+.]*$)[+-]?0*\d*\.?\d*$": r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)$",
}
"""Maps known regular expressions with look-around, which llguidance does not support, to equal expressions
without it.
"""
_LOOK_AROUND = re.compile(r"\(\?<?[=!]")


def _is_free(value: object) -> bool:
    """Return True if every value matches the schema `value`."""
    return value is True or (isinstance(value, Mapping) and not value.keys() - ANNOTATIONS)


def _is_zero(value: object) -> bool:
    return value == 0 and not isinstance(value, bool)


def _is_empty(value: object) -> bool:
    return isinstance(value, list | dict) and not value


_IDLE: Mapping[str, Callable[[Any], bool]] = {
    "uniqueItems": lambda value: value is False,
    "minItems": _is_zero,
    "minLength": _is_zero,
    "minProperties": _is_zero,
    "required": _is_empty,
    "patternProperties": _is_empty,
    "dependentRequired": _is_empty,
    "dependentSchemas": _is_empty,
    "dependencies": _is_empty,
    "allOf": lambda value: isinstance(value, list) and all(map(_is_free, cast("list[object]", value))),
    "propertyNames": lambda value: _is_free(value) or value == {"type": "string"},
    "unevaluatedItems": _is_free,
    "not": lambda value: value is False,
    "format": lambda value: isinstance(value, str) and value not in FORMATS,
    "nullable": lambda value: value is False,
}
"""Maps each keyword to a function that returns True if the keyword's value has no effect."""
_TOUCHED = frozenset({*_IDLE, "contains", "minContains", "maxContains", "if", "then", "else", "pattern"})


def without_idle(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `schema` without the keywords that have no effect. Known patterns with look-around are
    replaced by equal patterns that llguidance supports.
    """
    if schema.keys().isdisjoint(_TOUCHED):
        return dict(schema)
    kept = {key: value for key, value in schema.items() if key not in _IDLE or not _IDLE[key](value)}
    if "contains" not in kept or (_is_zero(kept.get("minContains", 1)) and "maxContains" not in kept):
        for key in ("contains", "minContains", "maxContains"):
            kept.pop(key, None)
    if "if" not in kept or all(_is_free(kept.get(key, True)) for key in ("then", "else")):
        for key in ("if", "then", "else"):
            kept.pop(key, None)
    pattern, name = kept.get("pattern"), schema.get("format")
    if isinstance(pattern, str):
        kept["pattern"] = _PATTERNS.get(pattern, pattern)
    elif pattern is None and isinstance(name, str) and re.fullmatch("uuid[1-8]", name):
        kept["pattern"] = _UUID.format(name[-1])
    return kept


def with_named_properties(schema: Mapping[str, Any], names: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy of `schema` in which `propertyNames` is replaced by `properties` or `patternProperties`,
    which llguidance supports.

    `names` is the schema in `propertyNames`. Returns an unchanged copy if that is impossible: `schema` also
    has properties, or `names` has other constraints.
    """
    if "properties" in schema or "patternProperties" in schema:
        return dict(schema)
    kept = {key: value for key, value in schema.items() if key != "propertyNames"}
    of_each = kept.get("additionalProperties", {})
    listed = names.get("enum", [names["const"]] if "const" in names else [])
    rules = names.keys() - ANNOTATIONS - {"type"}
    if isinstance(listed, list) and listed and not rules - {"enum", "const"}:
        texts = [name for name in cast("list[object]", listed) if isinstance(name, str)]
        return kept | {"properties": dict.fromkeys(texts, of_each), "additionalProperties": False}
    if rules == {"pattern"}:
        pattern = names["pattern"]
    elif rules and not rules - {"minLength", "maxLength"}:
        pattern = f"^.{{{names.get('minLength', 0)},{names.get('maxLength', '')}}}$"
    else:
        return dict(schema)
    return kept | {"patternProperties": {pattern: of_each}, "additionalProperties": False}


def is_servable_branch(branch: object) -> bool:
    """Return False if the branch of a union has a regular expression with look-around, which is not
    supported.
    """
    if not isinstance(branch, Mapping):
        return True
    pattern = cast("Mapping[str, object]", branch).get("pattern")
    return not isinstance(pattern, str) or pattern in _PATTERNS or not _LOOK_AROUND.search(pattern)


def values_of(schema: object) -> frozenset[str]:
    """Return the strings that `const` or `enum` of `schema` allows, as JSON; empty without these keywords."""
    if not isinstance(schema, Mapping):
        return frozenset()
    keywords = cast("Mapping[str, Any]", schema)
    if "const" in keywords:
        listed: Sequence[Any] = [keywords["const"]]
    else:
        listed = keywords["enum"] if isinstance(keywords.get("enum"), list) else []
    return frozenset(msgspec.json.encode(value).decode() for value in listed if isinstance(value, str))


def count_schemas(schema: object) -> int:
    """Return the number of objects and arrays inside `schema`, including `schema` itself."""
    count, pending = 0, [schema]
    while pending:
        value = pending.pop()
        if isinstance(value, Mapping):
            pending += cast("Mapping[str, object]", value).values()
        elif isinstance(value, list | tuple):
            pending += cast("Sequence[object]", value)
        else:
            continue
        count += 1
    return count
