"""Tools in one line."""

from __future__ import annotations

from typing import Any

import pytest

from server.text.tool_signature import signature


def shown(**properties: Any) -> str:
    parameters = {"type": "object", "properties": properties, "required": [*properties][:1]}
    parameters["$defs"] = {"P": {"type": "object", "properties": {"x": {"type": "integer"}, "p": REF}}}
    return signature({"name": "f", "description": "Does it.", "parameters": parameters})


REF = {"$ref": "#/$defs/P"}


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ({"type": "string", "description": "Where."}, "string (Where.)"),
        ({"enum": ["Umeå", 2, None]}, '"Umeå" | 2 | null'),
        ({"const": True}, "true"),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, "integer | null"),
        ({"type": ["string", "null"]}, "string | null"),
        ({"type": "array", "items": {"type": "number"}}, "number[]"),
        ({"type": "array", "items": {"enum": [1, 2]}}, "(1 | 2)[]"),
        ({"type": "object", "additionalProperties": {"type": "integer"}}, "{[name]: integer}"),
        ({"type": "object"}, "object"),
        ({"properties": {"a": {}}, "required": ["a"]}, "{a: any}"),
        (True, "any"),
        ({"$ref": "http://x"}, "any"),
    ],
)
def test_types(value: object, written: str) -> None:
    assert shown(a=value, b=True) == f"f(a: {written}, b?: any): Does it."


def test_what_has_no_end_is_cut() -> None:
    assert shown(a=REF).startswith("f(a: {x?: integer, p?: {x?: integer, p?: ")
    assert "any" in shown(a=REF)
    many = {"properties": {f"p{index}": {"type": "string"} for index in range(2_000)}}
    assert signature({"name": "f", "parameters": many}).count("string") == 500


def test_a_tool_that_takes_nothing() -> None:
    assert signature({"name": "f", "parameters": {"type": "object", "properties": {}}}) == "f()"
    assert signature({"name": "f"}) == "f()"
