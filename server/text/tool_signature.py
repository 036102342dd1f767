"""Describes a tool in one line for bases whose chat template does not support tools.

The line looks like `weather(place: string, day?: integer)`. Types are written as in TypeScript, which takes
far fewer tokens than JSON Schema.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any, cast

_DEPTH = 6
"""Maximum nesting of objects, arrays and references up to which the types of a tool's parameters are written
out.
"""
_TYPES = 500
"""Maximum number of types in a tool's parameters that are written out."""
_VALUES = 20
"""Maximum number of values of an `enum` in a tool's parameters that are written out."""
_ANY = "any"


def signature(function: Mapping[str, Any]) -> str:
    """Describe a tool in one line: its `name`, `parameters` (a JSON schema) and `description`.

    Types that exceed the limits `_DEPTH` and `_TYPES` are written as `any`.
    """
    parameters: Mapping[str, Any] = function.get("parameters") or {}
    inside = _Writer(parameters).properties(parameters, 0)
    said = f": {function['description']}" if function.get("description") else ""
    return f"{function['name']}({inside}){said}"


class _Writer:
    def __init__(self, root: Mapping[str, Any]) -> None:
        self._root = root
        self._left = _TYPES

    def properties(self, schema: Mapping[str, Any], depth: int) -> str:
        properties, required = schema.get("properties"), schema.get("required")
        if not isinstance(properties, Mapping):
            return ""
        needed = cast("list[object]", required) if isinstance(required, list) else []
        return ", ".join(
            f"{name}{'' if name in needed else '?'}: {self._type(item, depth)}{_described(item)}"
            for name, item in cast("Mapping[str, object]", properties).items()
        )

    def _type(self, value: object, depth: int) -> str:
        self._left -= 1
        if not isinstance(value, Mapping) or depth > _DEPTH or self._left < 0:
            return _ANY
        schema = cast("Mapping[str, Any]", value)
        if "const" in schema:
            return _json(schema["const"])
        if isinstance(schema.get("enum"), list):
            return " | ".join(map(_json, schema["enum"][:_VALUES])) or _ANY
        for key, between in (("anyOf", " | "), ("oneOf", " | "), ("allOf", " & ")):
            if isinstance(schema.get(key), list):
                parts = [self._type(item, depth + 1) for item in cast("list[object]", schema[key])]
                return between.join(dict.fromkeys(parts)) or _ANY
        if isinstance(schema.get("$ref"), str):
            return self._type(self._find(schema["$ref"]), depth + 1)
        match schema.get("type", "object" if "properties" in schema else None):
            case "object":
                return self._object(schema, depth + 1)
            case "array":
                inner = self._type(schema.get("items"), depth + 1)
                return f"({inner})[]" if " " in inner and inner[0] != "{" else f"{inner}[]"
            case str(name):
                return name
            case list() as names:
                return " | ".join(str(name) for name in cast("Sequence[object]", names)) or _ANY
            case _:
                return _ANY

    def _object(self, schema: Mapping[str, Any], depth: int) -> str:
        if "properties" in schema:
            return f"{{{self.properties(schema, depth)}}}"
        more = schema.get("additionalProperties")
        return f"{{[name]: {self._type(more, depth)}}}" if isinstance(more, Mapping) else "object"

    def _find(self, ref: str) -> object:
        place: object = self._root
        for key in ref.split("/")[1:]:
            place = cast("Mapping[str, object]", place).get(key) if isinstance(place, Mapping) else None
        return place


def _described(item: object) -> str:
    said = cast("Mapping[str, object]", item).get("description") if isinstance(item, Mapping) else None
    return f" ({said})" if isinstance(said, str) and said else ""


def _json(value: object) -> str:
    return json.dumps(value, ensure_ascii=False)
