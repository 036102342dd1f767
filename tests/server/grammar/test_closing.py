"""Schemas are closed over what they declare, combined parts over all of theirs, and what they say wins."""

from __future__ import annotations

import time
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from server.grammar import text as grammar
from server.grammar.closing import close_objects
from server.grammar.llg import compile_grammar
from server.grammar.schema import check_schema
from server.grammar.text import GrammarRefusedError
from tests.server.grammar.test_text import READER, reads

DRAFT_7 = "http://json-schema.org/draft-07/schema#"
INTEGER: dict[str, Any] = {"type": "integer"}


def an_object(*required: str, **properties: Any) -> dict[str, Any]:
    schema: dict[str, Any] = {"type": "object", "properties": properties}
    return schema | ({"required": [*required]} if required else {})


A, B = an_object("a", a=INTEGER), an_object(b=INTEGER)
REF_A, REF_B = {"$ref": "#/$defs/A"}, {"$ref": "#/$defs/B"}
DEFS: dict[str, Any] = {"$defs": {"A": A, "B": B}}
KINDS = {
    "A": an_object("k", k={"enum": ["x", "y"], "type": "string"}, a=INTEGER),
    "B": an_object("k", k={"const": "z", "type": "string"}),
}
NODE = an_object("v", v=INTEGER, next={"anyOf": [{"$ref": "#/$defs/N"}, {"type": "null"}]})


@pytest.mark.parametrize(
    ("schema", "fits", "fails"),
    [
        (A, ['{"a": 1}'], ['{"a": 1, "z": 1}']),
        ({"type": "object"}, ['{"z": 1}'], []),
        ({"properties": {}, "type": "object"}, ["{}"], ['{"z": 1}']),
        (an_object("a", "b", a=INTEGER), ['{"a": 1, "b": []}'], ['{"a": 1}', '{"a": 1, "b": 1, "z": 1}']),
        (an_object(a=an_object(b=INTEGER)), ['{"a": {"b": 1}}'], ['{"a": {"z": 1}}']),
        (an_object(items=INTEGER, allOf=INTEGER), ['{"items": 1}'], ['{"allOf": {}}']),
        # What it says wins.
        (A | {"additionalProperties": True}, ['{"a": 1, "z": 1}'], []),
        (A | {"additionalProperties": {}}, ['{"a": 1, "z": 1}'], []),
        (A | {"additionalProperties": INTEGER}, ['{"a": 1, "z": 1}'], ['{"a": 1, "z": "x"}']),
        (A | {"additionalProperties": False}, ['{"a": 1}'], ['{"a": 1, "z": 1}']),
        (A | {"patternProperties": {"^x": INTEGER}}, ['{"a": 1, "z": ""}'], []),
        (A | {"unevaluatedProperties": True}, ['{"a": 1, "z": 1}'], []),
        ({"allOf": [A, B | {"additionalProperties": True}]}, ['{"a": 1, "z": 1}'], []),
        # Combined parts are closed over all of theirs.
        ({"allOf": [A, B]}, ['{"a": 1, "b": 1}', '{"a": 1}'], ['{"a": 1, "z": 1}', '{"b": 1}']),
        ({"allOf": [REF_A, REF_B]} | DEFS, ['{"a": 1, "b": 1}'], ['{"a": 1, "z": 1}']),
        ({"allOf": [REF_A], "title": "x"} | DEFS, ['{"a": 1}'], ['{"a": 1, "z": 1}']),
        (REF_A | {"description": "x"} | DEFS, ['{"a": 1}'], ['{"a": 1, "z": 1}']),
        (REF_A | {"properties": {"b": REF_B}} | DEFS, ['{"a": 1, "b": {"b": 1}}'],
         ['{"a": 1, "z": 1}', '{"a": 1, "b": {"z": 1}}']),
        ({"allOf": [A, B], "unevaluatedProperties": False}, ['{"a": 1, "b": 1}'], ['{"a": 1, "z": 1}']),
        ({"anyOf": [A, B, {"type": "null"}]}, ['{"a": 1}', "{}", "null"], ['{"a": 1, "b": 1}', '{"z": 1}']),
        (an_object("k", k=INTEGER) | {"anyOf": [A, B]}, ['{"k": 1, "a": 1}', '{"k": 1, "b": 1}'],
         ['{"k": 1, "a": 1, "b": 1}', '{"k": 1, "a": 1, "z": 1}', '{"a": 1}']),
        (an_object("k", k=INTEGER) | {"anyOf": [REF_A, REF_B]} | DEFS, ['{"k": 1, "a": 1}', '{"k": 1}'],
         ['{"k": 1, "z": 1}']),
        (an_object(a=INTEGER, b=INTEGER) | {"anyOf": [{"required": ["a"]}, {"required": ["b"]}]},
         ['{"a": 1}', '{"a": 1, "b": 1}'], ["{}", '{"a": 1, "z": 1}']),
        ({"oneOf": [REF_A, REF_B], "$defs": KINDS, "discriminator": {"propertyName": "k"}},
         ['{"k": "y", "a": 1}', '{"k": "z"}'], ['{"k": "z", "a": 1}', '{"k": "q"}']),
        ({"$ref": "#/$defs/N", "$defs": {"N": NODE}}, ['{"v": 1, "next": {"v": 2, "next": null}}'],
         ['{"v": 1, "z": 1}', '{"v": 1, "next": {"v": 2, "z": 1}}']),
        ({"$ref": "#/$defs/N", "$defs": {"N": {"allOf": [{"$ref": "#/$defs/B"}, NODE]}, "B": B}},
         ['{"b": 1, "v": 1, "next": {"v": 2}}'], ['{"v": 1, "z": 1}']),
        (an_object(self={"$ref": "#"}, v=INTEGER), ['{"self": {"v": 1}}'], ['{"self": {"z": 1}}']),
        ({"$schema": DRAFT_7, **REF_A, "properties": {"b": INTEGER}, **DEFS},
         ['{"a": 1}'], ['{"b": 1}', '{"a": 1, "b": 1}']),
        # Names of properties.
        ({"type": "object", "propertyNames": {"enum": ["a", "b"]}, "additionalProperties": INTEGER},
         ["{}", '{"b": 1}'], ['{"z": 1}', '{"a": "x"}']),
        ({"type": "object", "propertyNames": {"maxLength": 2}, "additionalProperties": INTEGER},
         ['{"ab": 1, "c": 2}'], ['{"abc": 1}', '{"a": "x"}']),
        # A branch that cannot be kept to is left to the others.
        (an_object(a={"anyOf": [{"type": "number"}, {"type": "string", "pattern": "(?=x)"}]}),
         ['{"a": 1}'], ['{"a": "x"}']),
    ],
)  # fmt: skip
def test_what_fits(schema: dict[str, Any], fits: list[str], fails: list[str]) -> None:
    check_schema(schema)
    text = grammar.json_schema(close_objects(schema))
    assert [written for written in fits if not reads(text, written)] == []
    assert [written for written in fails if reads(text, written)] == []


@pytest.mark.parametrize(
    "idle",
    [
        *({"uniqueItems": False}, {"minItems": 0}, {"minLength": 0}, {"minProperties": 0}, {"required": []}),
        *({"propertyNames": {}}, {"propertyNames": {"type": "string"}}, {"dependentRequired": {}}),
        *(
            {"dependentSchemas": {}},
            {"unevaluatedItems": True},
            {"unevaluatedProperties": {}},
            {"not": False},
        ),
        *({"contains": {}, "minContains": 0}, {"minContains": 2}, {"if": {"type": "null"}}, {"then": {}}),
        *({"if": {}, "then": True, "else": {"title": "x"}}, {"format": "int32"}, {"format": "password"}),
        *({"allOf": []}, {"allOf": [{}]}, {"patternProperties": {}}, {"title": "x", "examples": [1]}),
    ],
    ids=str,
)
def test_a_keyword_that_asks_for_nothing_is_left_out(idle: dict[str, Any]) -> None:
    text = grammar.json_schema(close_objects({"type": ["integer", "object", "string"], **idle}))
    assert reads(text, "1")
    assert reads(text, '{"z": 1}')


@pytest.mark.parametrize(
    "kept",
    [{"uniqueItems": True}, {"minItems": 1}, {"minLength": True}, {"format": "date"}, {"not": {}}],
    ids=str,
)
def test_one_that_asks_for_something_is_not(kept: dict[str, Any]) -> None:
    assert close_objects(kept) == kept


@pytest.mark.parametrize("key", ["additionalProperties", "unevaluatedProperties"])
def test_a_required_property_that_the_schema_forbids_is_not_allowed(key: str) -> None:
    schema = an_object("z", a=INTEGER)
    assert reads(grammar.json_schema(close_objects(schema)), '{"z": 1}')
    with pytest.raises(GrammarRefusedError, match="z"):
        compile_grammar(READER, grammar.json_schema(close_objects(schema | {key: False})))


def chain(count: int) -> dict[str, Any]:
    defs = {f"A{place}": {"allOf": [{"$ref": f"#/$defs/A{place + 1}"}] * 2} for place in range(count)}
    return {"$defs": {**defs, f"A{count}": A}, "$ref": "#/$defs/A0"}


def unions(count: int) -> dict[str, Any]:
    every = [{"$ref": f"#/$defs/A{place}"} for place in range(count)]
    defs = {f"A{place}": {"properties": {f"p{place}": INTEGER}, "anyOf": every} for place in range(count)}
    return {"$defs": defs, "$ref": "#/$defs/A0"}


@pytest.mark.parametrize("schema", [chain(300), unions(20)])
def test_what_combines_without_end_is_refused_soon(schema: dict[str, Any]) -> None:
    check_schema(schema)
    began = time.thread_time()
    with pytest.raises(GrammarRefusedError):
        close_objects(schema)
    assert time.thread_time() - began < 1


def test_a_few_parts_are_combined() -> None:
    assert reads(grammar.json_schema(close_objects(chain(10))), '{"a": 1}')


NAMES = st.sampled_from(["properties", "items", "allOf", "anyOf", "$ref", "$defs", "required", "type", "not",
                         "propertyNames", "enum", "minProperties", "additionalProperties", "a"])  # fmt: skip
LEAVES = st.sampled_from([None, True, 0, "object", "#", "#/$defs/a", "#/properties/a/items/0", "a", [], {}])
ODD = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=4),
    max_leaves=12,
)


@settings(max_examples=200, deadline=None)
@given(st.dictionaries(NAMES, ODD, max_size=5))
@example({"properties": None, "$ref": "#", "$defs": None})
@example({"properties": None, "$ref": "#", "$defs": "a"})
def test_no_schema_breaks_it(schema: dict[str, Any]) -> None:
    try:
        check_schema(schema)
        closed = close_objects(schema)
    except GrammarRefusedError:
        return
    assert grammar.json_schema(closed)
