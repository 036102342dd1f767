"""Grammars of tool calls, in every format that is read."""

from __future__ import annotations

import json
from typing import Any

import pytest
from llguidance import LLTokenizer

from server.grammar.calls import tool_calls
from server.grammar.llg import compile_grammar
from server.text.tool_formats import FORMATS, HERMES, JSON, LLAMA3, MISTRAL, ToolFormat
from server.text.tool_parser import CallReader
from server.text.tool_syntax import ARGS, CALL_CLOSE, CALL_OPEN, TOOL_CALLS, whole
from tests.server.small_tokenizers import mistral_like

TOKENIZER = mistral_like()
READER = LLTokenizer(TOKENIZER.to_str(), eos_token=[2])
FIRST_BYTE = TOKENIZER.get_vocab()["<0x00>"]
BEGIN, OTHER = TOKENIZER.get_vocab()["[INST]"], TOKENIZER.get_vocab()["[/INST]"]


def reads(text: str, *parts: int | str) -> bool:
    """Whether the grammar `text` allows special tokens and texts, as a whole."""
    matcher = compile_grammar(READER, text)
    ids = [
        token
        for part in parts
        for token in ([part] if isinstance(part, int) else [FIRST_BYTE + byte for byte in part.encode()])
    ]
    return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


def taking(value: object) -> dict[str, Any]:
    """The schema of an object whose `a` is `value`, by a reference of its own."""
    own = {"$defs": {"n": {"const": value}}, "type": "object"}
    return own | {"properties": {"a": {"$ref": "#/$defs/n"}}, "required": ["a"]}


TOOLS = {"f": taking(1), 'f"2': taking("x")}


def calls(*made: tuple[str, object]) -> str:
    return json.dumps([{"name": name, "arguments": {"a": value}} for name, value in made])


def test_an_array_after_a_special_token() -> None:
    text = tool_calls(MISTRAL, TOOLS, {TOOL_CALLS: BEGIN})
    assert reads(text, BEGIN, calls(("f", 1)))
    assert reads(text, BEGIN, calls(("f", 1), ('f"2', "x"), ("f", 1)))
    for wrong in (calls(("f", "x")), calls(('f"2', 1)), calls(("g", 1)), "[]", "hello"):
        assert not reads(text, BEGIN, wrong)
    assert not reads(text, calls(("f", 1)))
    assert not reads(text, "[INST]" + calls(("f", 1)))
    one = tool_calls(MISTRAL, TOOLS, {TOOL_CALLS: BEGIN}, parallel=False)
    assert reads(one, BEGIN, calls(("f", 1)))
    assert not reads(one, BEGIN, calls(("f", 1), ("f", 1)))


def test_names_between_special_tokens() -> None:
    text = tool_calls(MISTRAL, TOOLS, {TOOL_CALLS: BEGIN, ARGS: OTHER})
    assert reads(text, BEGIN, "f", OTHER, '{"a": 1}', BEGIN, 'f"2', OTHER, '{"a": "x"}')
    assert not reads(text, BEGIN, "f", OTHER, '{"a": 2}')


@pytest.mark.parametrize("form", [HERMES, LLAMA3, JSON])
def test_a_format_takes_what_it_writes_and_reads(form: ToolFormat) -> None:
    made = [("f", {"a": 1}), ('f"2', {"a": "x"}), ("f", {"a": 1})]
    written = form.write([{"function": {"name": name, "arguments": given}} for name, given in made])
    text, one = tool_calls(form, TOOLS, {}), tool_calls(form, TOOLS, {}, parallel=False)
    assert reads(text, written)
    assert not reads(one, written)
    assert reads(one, form.write([{"function": {"name": "f", "arguments": {"a": 1}}}]))
    assert not reads(text, form.write([{"function": {"name": "f", "arguments": {"a": 2}}}]))
    assert not reads(text, "hello")
    plain = form.write([{"function": {"name": "f", "arguments": given}} for _, given in made])
    reader = CallReader(form, ["f"])
    answer = whole([*reader.push(plain), *reader.finish()])
    assert [json.loads(arguments) for _, arguments in answer.calls] == [given for _, given in made]


def test_control_tokens_of_a_format_are_written_as_such() -> None:
    text = tool_calls(HERMES, TOOLS, {CALL_OPEN: BEGIN, CALL_CLOSE: OTHER})
    call = '\n{"name": "f", "arguments": {"a": 1}}\n'
    assert reads(text, BEGIN, call, OTHER, "\n", BEGIN, call, OTHER)
    assert not reads(text, CALL_OPEN + call + CALL_CLOSE)


@pytest.mark.parametrize("form", list(FORMATS.values()))
def test_calls_of_no_tools_make_no_sense(form: ToolFormat) -> None:
    with pytest.raises(ValueError, match=r"^tools is"):
        tool_calls(form, {}, {TOOL_CALLS: BEGIN})
