"""Schemas that are none are refused by their place, as the metaschemas of JSON Schema have it."""

from __future__ import annotations

from typing import Any

import jsonschema_rs
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from server.grammar.text import GrammarRefusedError
from server.grammar.validity import KEYWORDS, TYPES, check_validity


def place(schema: dict[str, Any]) -> str | None:
    """Where `schema` is refused; None if it is not."""
    try:
        check_validity(schema)
    except GrammarRefusedError as error:
        return error.place
    return None


@pytest.mark.parametrize(
    ("schema", "where"),
    [
        ({"type": "strin"}, "type"),
        ({"type": []}, "type"),
        ({"type": ["string", "none"]}, "type"),
        ({"properties": {"a": {"type": "int"}}}, "properties.a.type"),
        ({"properties": ["a"]}, "properties"),
        ({"properties": {"a": "string"}}, "properties"),
        ({"required": "a"}, "required"),
        ({"required": True}, "required"),
        ({"items": "string"}, "items"),
        ({"items": {"minLength": -1}}, "items.minLength"),
        ({"items": [{}, {"maxLength": 1.5}]}, "items[1].maxLength"),
        ({"anyOf": []}, "anyOf"),
        ({"anyOf": [{"oneOf": [{"enum": {}}]}]}, "anyOf[0].oneOf[0].enum"),
        ({"$defs": {"x": {"additionalProperties": {"pattern": 5}}}}, "$defs.x.additionalProperties.pattern"),
        ({"minimum": "1"}, "minimum"),
        ({"minimum": True}, "minimum"),
        ({"multipleOf": 0}, "multipleOf"),
        ({"not": []}, "not"),
        ({"dependentRequired": {"a": "b"}}, "dependentRequired"),
    ],
)
def test_what_is_wrong_is_named_by_its_place(schema: dict[str, Any], where: str) -> None:
    assert place(schema) == where


@pytest.mark.parametrize(
    "schema",
    [
        {},
        {"items": [{"type": "string"}, True]},
        {"maxLength": 3.0, "title": None, "x-order": {"type": 3}},
        {"enum": [{"type": "strin"}], "const": {"type": 5}, "default": {"required": 1}},
        {"properties": {"type": {"type": ["null", "string"]}, "required": {"const": 1}}},
        {"definitions": {"a": {"$ref": "#/definitions/b"}, "b": False}},
    ],
)
def test_what_is_a_schema_passes(schema: dict[str, Any]) -> None:
    assert place(schema) is None


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 3) | st.sampled_from([*TYPES, "x", 0.5, 2.0]),
    lambda inner: (
        st.lists(inner, max_size=3, unique_by=repr)
        | st.dictionaries(st.sampled_from("ab"), inner, max_size=2)
    ),
    max_leaves=4,
)
SCHEMAS = st.recursive(
    st.dictionaries(st.sampled_from(sorted(KEYWORDS)), VALUES, max_size=3),
    lambda inner: st.fixed_dictionaries(
        {}, optional={"properties": st.dictionaries(st.sampled_from("ab"), inner), "anyOf": st.lists(inner)}
    ),
    max_leaves=4,
)
LENIENT = ("$schema", "$id", "$anchor", "$ref", "allOf")
"""The syntax of names is checked where they are used, or by nobody; an empty `allOf` passes."""
METASCHEMAS = ("https://json-schema.org/draft/2020-12/schema", "http://json-schema.org/draft-07/schema#")


@settings(max_examples=400, deadline=None)
@given(schema=SCHEMAS)
def test_the_metaschemas_agree(schema: dict[str, Any]) -> None:
    found = place(schema)
    assume(not any(key in repr(schema) for key in LENIENT))
    valid = [jsonschema_rs.meta.is_valid(schema | {"$schema": url}) for url in METASCHEMAS]
    if found is None:
        assert any(valid), schema
    else:
        assert not all(valid), (schema, found)
