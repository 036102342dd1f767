"""Grammars as text: each reads as what was wished for, in llguidance and in vLLM's way into it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from llguidance import LLMatcher, LLTokenizer, grammar_from

from server.grammar import text as grammar
from server.grammar.calls import tool_calls
from server.grammar.llg import compile_grammar, complaint
from server.grammar.schema import MAX_COUNT, MAX_DEPTH, check_schema
from server.grammar.text import GrammarRefusedError
from server.text.tool_formats import HERMES, MISTRAL
from server.text.tool_syntax import TOOL_CALLS
from tests.server.small_tokenizers import mistral_like

TOKENIZER = mistral_like()
READER = LLTokenizer(TOKENIZER.to_str(), eos_token=[2])
FIRST_BYTE = TOKENIZER.get_vocab()["<0x00>"]


def reads(text: str, written: str | bytes, *before: int) -> bool:
    """Whether the grammar `text` allows `written`, as a whole, after the special tokens `before`."""
    matcher = compile_grammar(READER, text)
    data = written.encode() if isinstance(written, str) else written
    ids = [*before, *(FIRST_BYTE + byte for byte in data)]
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def test_any_object_with_one_blank_at_most() -> None:
    text = grammar.json_object()
    for written in ('{}', '{"a": 1, "b":[2,3, 4], "c": {"d": null}}', '{"å":"ä  ö"}'):  # fmt: skip
        assert reads(text, written)
    for written in (
        "[]",
        "1",
        "",
        " {}",
        "{} ",
        "{ }",
        '{"a" : 1}',
        '{"a":  1}',
        '{"a":1,  "b":2}',
        '{"a":\n1}',
    ):
        assert not reads(text, written)


def test_a_schema_keeps_its_own_words() -> None:
    schema = {
        "type": "object",
        "properties": {"x-guidance": {"const": "}\n%json"}},
        "required": ["x-guidance"],
    }
    assert reads(grammar.json_schema(schema), '{"x-guidance": "}\\n%json"}')


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(min_size=1, max_size=12), min_size=1, max_size=4), st.text(max_size=6))
def test_a_choice_is_one_of_its_texts(options: list[str], other: str) -> None:
    text = grammar.choice(options)
    whole = [option.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace") for option in options]
    assert all(reads(text, option) for option in whole)
    assert reads(text, other) == (other in whole)


def test_halves_of_surrogate_pairs_are_read_as_elsewhere() -> None:
    assert reads(grammar.choice(["a\ud800b"]), "a\ufffdb")
    assert reads(grammar.regex("\ud800"), "\ufffd")
    assert reads(grammar.lark('start: "\ud800"'), "\ufffd")
    assert reads(grammar.json_schema({"enum": [["\udc00"]]}), '["\ufffd"]')


@pytest.mark.parametrize(
    ("pattern", "fits", "fails"),
    [
        ("a/b", "a/b", "a"),
        (r"a\/b", "a/b", "ab"),
        ("x\ny", "x\ny", "xy"),
        ('/\nstart: "q"', '/\nstart: "q"', "q"),
        (r"^\d{2}$", "12", "123"),
        ("ja|nej", "nej", "jan"),
        ("[åäö]+", "åö", ""),
    ],
)
def test_a_pattern(pattern: str, fits: str, fails: str) -> None:
    assert reads(grammar.regex(pattern), fits)
    assert not reads(grammar.regex(pattern), fails)


@pytest.mark.parametrize(
    "text",
    [
        grammar.json_schema({"const": "root ::= a\nstart"}),
        grammar.regex("::=\nx"),
        grammar.choice(["a ::= b"]),
        tool_calls(MISTRAL, {"f": {}}, {TOOL_CALLS: 3}),
        tool_calls(HERMES, {"f": {}}, {}),
        grammar.lark('// a comment\nstart : "a"'),
    ],
)
def test_vllms_way_in_takes_each_for_lark(text: str) -> None:
    asked = grammar_from("grammar", text)
    assert asked == LLMatcher.grammar_from_lark(text)
    assert LLMatcher.validate_grammar(asked) == ""


def test_a_complaint_is_one_short_line_without_the_grammar() -> None:
    with pytest.raises(GrammarRefusedError) as error:
        compile_grammar(READER, grammar.json_schema({"type": "rubbish", "description": "secret"}))
    assert "rubbish" in str(error.value)
    assert "secret" not in str(error.value)
    assert "\n" not in str(error.value)
    assert len(complaint("x" * 5000)) == 300


def test_a_complaint_counts_the_lines_of_the_clients_own_grammar() -> None:
    for text, place in (('start: "a" b', "line 1, column 8"), ('start: "a"\n\nc d e', "line 3, column 3")):
        with pytest.raises(GrammarRefusedError, match=place) as error:
            compile_grammar(READER, grammar.lark(text))
        assert str(error.value) == f"{place}: {error.value.reason}"


DATA = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.text(max_size=4),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=4), DATA, max_size=4))
def test_ordinary_schemas_pass(schema: dict[str, Any]) -> None:
    check_schema(schema)


def deep(depth: int) -> dict[str, Any]:
    schema: dict[str, Any] = {}
    for _ in range(depth - 1):
        schema = {"items": schema}
    return schema


@pytest.mark.parametrize(
    "schema",
    [
        deep(MAX_DEPTH),
        {"maxItems": MAX_COUNT},
        {"$ref": "#/$defs/a"},
        {"properties": {"$ref": {"type": "string"}, "maxItems": {"const": 1}}},
        {"const": {"$ref": "http://x/"}, "enum": [{"maxItems": 10**9}], "default": {"$ref": "x"}},
    ],
)
def test_what_a_schema_may_hold(schema: dict[str, Any]) -> None:
    check_schema(schema)


@pytest.mark.parametrize(
    ("schema", "word"),
    [
        (deep(MAX_DEPTH + 1), "deep"),
        (deep(100_000), "deep"),
        ({"x-guidance": {}}, "x-guidance"),
        ({"anyOf": [{"$ref": "file:///etc/passwd"}]}, r"\$ref"),
        ({"$defs": {"$ref": {"$ref": "x"}}}, r"\$ref"),
        ({"properties": {"const": {"$dynamicRef": "x"}}}, r"\$dynamicRef"),
        ({"items": {"minLength": 10**12}}, "minLength"),
        ({"maxItems": 1e300}, "maxItems"),
    ],
)
def test_what_it_may_not(schema: dict[str, Any], word: str) -> None:
    with pytest.raises(GrammarRefusedError, match=word):
        check_schema(schema)
