"""Tools in requests and conversations: what is taken, what the model sees, and what is refused by path."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from server.api.fields.decode import to_generation
from server.api.fields.generation import ChatFields
from server.api.parsing.messages import parse_messages, user_turns
from server.api.parsing.tool_messages import read_call_id
from server.api.parsing.tools import ToolUse, read_tools
from server.errors import ApiError, ErrorReply
from server.text.chat_template import BREAK
from server.text.tokenizer import Tokenizer
from server.text.tool_formats import JSON, MISTRAL
from server.text.tool_syntax import ID, MARKS
from tests.server.tool_bases import ARRAY_TOKENS, NAMED_TOKENS, write_tool_tokenizer

ASK: dict[str, Any] = {"role": "user", "content": "How warm is it?"}
WEATHER: dict[str, Any] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a place.",
        "parameters": {"type": "object", "properties": {"place": {"type": "string"}}},
        "strict": True,
    },
}
CLOCK: dict[str, Any] = {"type": "function", "function": {"name": "clock", "description": None}}


def call(call_id: str = "abcdefgh1", arguments: str = '{"place": "Ume\\u00e5"}') -> dict[str, Any]:
    return {"id": call_id, "type": "function", "function": {"name": "weather", "arguments": arguments}}


def asked(*calls: dict[str, Any]) -> dict[str, Any]:
    return {"role": "assistant", "content": None, "tool_calls": list(calls)}


def result(call_id: str = "abcdefgh1", content: object = "3 degrees") -> dict[str, Any]:
    return {"role": "tool", "tool_call_id": call_id, "content": content}


@pytest.fixture(scope="module")
def array(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_tool_tokenizer(tmp_path_factory.mktemp("array"), "array"))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    return Tokenizer.load(write_tool_tokenizer(tmp_path_factory.mktemp("named"), "named"))


def use(tokenizer: Tokenizer, **fields: Any) -> ToolUse | None:
    return read_tools(to_generation({"messages": [ASK], **fields}, ChatFields), tokenizer)


def refused(tokenizer: Tokenizer, **fields: Any) -> ErrorReply:
    with pytest.raises(ApiError) as error:
        check(tokenizer, fields)
    assert error.value.reply.status == 400
    assert len(error.value.reply.message) < 300
    return error.value.reply


def check(tokenizer: Tokenizer, fields: dict[str, Any]) -> None:
    parse_messages(fields.get("messages", []))
    use(tokenizer, **fields)


def shown(tokenizer: Tokenizer, messages: list[dict[str, Any]], *tools: dict[str, Any]) -> str:
    """The prompt as the model reads it, control tokens included, several spaces as one."""
    found = use(tokenizer, tools=list(tools))
    ids = tokenizer.chat(parse_messages(messages), tools=found.tools if found else ())
    return re.sub(" +", " ", tokenizer.decode(ids, skip_special_tokens=False))


def test_the_model_is_shown_the_tools(array: Tokenizer, named: Tokenizer) -> None:
    nothing = {"type": "object", "properties": {}}
    definitions = [
        {"type": "function", "function": {k: v for k, v in WEATHER["function"].items() if k != "strict"}},
        {"type": "function", "function": {"name": "clock", "description": "", "parameters": nothing}},
    ]
    text = shown(array, [ASK], WEATHER, CLOCK)
    assert f"[AVAILABLE_TOOLS] {json.dumps(definitions)}[/AVAILABLE_TOOLS]" in text
    assert json.dumps(definitions) in shown(named, [ASK], WEATHER, CLOCK)
    assert "AVAILABLE" not in shown(array, [ASK])


def test_a_conversation_with_calls_and_results_is_rendered(array: Tokenizer, named: Tokenizer) -> None:
    messages = [
        ASK,
        asked(call(), call("abcdefgh2", "")),
        result("abcdefgh2", [{"type": "text", "text": "5 "}, {"type": "text", "text": "degrees"}]),
        result(),
        {"role": "assistant", "content": "It is 3 degrees."},
    ]
    text = shown(array, messages)
    assert '[TOOL_CALLS] [{"name": "weather", "arguments": {"place": "Umeå"}, "id": "abcdefgh1"}, ' in text
    assert '{"name": "weather", "arguments": {}, "id": "abcdefgh2"}]</s>' in text
    assert '[TOOL_RESULTS] {"content": 5 degrees, "call_id": "abcdefgh2"}[/TOOL_RESULTS]' in text
    text = shown(named, messages)
    assert '[TOOL_CALLS] weather[CALL_ID] abcdefgh1[ARGS] {"place": "Umeå"}' in text
    assert user_turns(parse_messages(messages)) == (ASK["content"],)


def test_foreign_ids_become_nine_characters_each_time_the_same(array: Tokenizer) -> None:
    long = "call_0Q2mXb8Jf5oWJ2x6nYkq7r3T"
    first, again = (parse_messages([ASK, asked(call(long)), result(long)]) for _ in range(2))
    assert first == again
    assert first[1]["tool_calls"][0]["id"] == first[2]["tool_call_id"]
    assert ID.fullmatch(first[2]["tool_call_id"])
    assert first[2]["name"] == "weather"
    assert "[TOOL_RESULTS]" in shown(array, [ASK, asked(call(long)), result(long)])
    assert read_call_id("abcdefgh1", "id") == "abcdefgh1"
    assert len({read_call_id(f"call_{n}", "id") for n in range(1000)}) == 1000


def test_arguments_that_are_no_object_stay_text() -> None:
    for text in ("{half", "[1]", "3", '{"a": NaN}'):
        parsed = parse_messages([ASK, asked(call(arguments=text)), result()])
        assert parsed[1]["tool_calls"][0]["function"]["arguments"] == text


HOSTILE = st.sampled_from(
    [*NAMED_TOKENS, "<s>", "</s>", "[TOOL_", "CALLS]", "[", "]", "/", BREAK, "ö", " ", "\\"]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=150)
@given(HOSTILE, st.booleans())
def test_control_tokens_of_a_client_are_letters(
    array: Tokenizer, named: Tokenizer, evil: str, as_array: bool
) -> None:
    tokenizer = array if as_array else named
    tokens = ARRAY_TOKENS if as_array else NAMED_TOKENS

    def count(text: str) -> dict[str, int]:
        tool = {
            "type": "function",
            "function": {
                "name": "weather",
                "description": text,
                "parameters": {"type": "object", "properties": {text: {"enum": [text, {"a": [text]}]}}},
            },
        }
        arguments = [json.dumps({text: [text, {"deep": text}]}), text]
        messages = [
            ASK,
            asked(*(call(f"{text}{n}", arguments[n]) for n in range(2))),
            *(result(f"{text}{n}", text) for n in range(2)),
        ]
        found = use(tokenizer, tools=[tool])
        assert found is not None
        ids = tokenizer.chat(parse_messages(messages), tools=found.tools)
        return {token: ids.count(tokenizer.added_id(token) or -1) for token in (*tokens, "<s>", "</s>")}

    assert count(evil) == count("plain")


def test_what_the_engine_and_the_answer_need(array: Tokenizer, named: Tokenizer) -> None:
    auto = use(array, tools=[WEATHER, CLOCK])
    assert auto is not None
    assert auto.calls == ""
    assert not auto.forced
    assert dict(auto.marks) == {array.added_id("[TOOL_CALLS]"): MARKS["[TOOL_CALLS]"]}
    assert auto.parallel
    chosen = {"type": "function", "function": {"name": "clock"}}
    one = use(named, tools=[WEATHER, CLOCK], tool_choice=chosen)
    assert one is not None
    assert set(one.marks.values()) == {MARKS[token] for token in MISTRAL.control}
    assert one.named
    assert not one.parallel
    assert "clock" in one.calls
    assert "weather" not in one.calls
    assert len(one.tools) == 2, "the model sees all of them"
    some = use(array, tools=[WEATHER], tool_choice="required", parallel_tool_calls=False)
    assert some is not None
    assert not some.parallel


def test_none_shows_no_tools(array: Tokenizer) -> None:
    assert use(array, tools=[WEATHER], tool_choice="none") is None
    assert use(array, tools=[]) is None
    assert use(array, tools=[], tool_choice="auto") is None
    assert use(array, tool_choice="none") is None


def test_a_base_that_knows_no_tools_says_so(tiny_base: Path) -> None:
    tokenizer = Tokenizer.load(tiny_base)
    assert not tokenizer.takes_tools
    reply = refused(tokenizer, tools=[WEATHER])
    assert (reply.param, reply.code) == ("tools", "unsupported_parameter")
    assert use(tokenizer, tools=[WEATHER], tool_choice="none") is None


def test_a_template_with_tools_needs_the_token_too(tmp_path: Path) -> None:
    write_tool_tokenizer(tmp_path, "array")
    text = (tmp_path / "tokenizer.json").read_text("utf-8")
    (tmp_path / "tokenizer.json").write_text(text.replace("[TOOL_CALLS]", "[TOOL_OTHER]"), "utf-8")
    tokenizer = Tokenizer.load(tmp_path)
    assert tokenizer.takes_tools
    assert refused(tokenizer, tools=[WEATHER]).code == "unsupported_parameter"
    forced = use(tokenizer, tools=[WEATHER], tool_choice="required")
    assert forced is not None
    assert (forced.format, forced.marks) == (JSON, {})


def tool(**function: Any) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f", **function}}]}


def nested(depth: int) -> dict[str, Any]:
    value: dict[str, Any] = {}
    for _ in range(depth - 1):
        value = {"properties": value}
    return value


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"tools": {}}, "tools"),
        ({"tools": [CLOCK] * 129}, "tools"),
        ({"tools": [{"function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "custom", "function": {"name": "f"}}]}, "tools[0].type"),
        ({"tools": [{"type": "function"}]}, "tools[0].function"),
        ({"tools": [CLOCK, CLOCK]}, "tools[1].function.name"),
        (tool(name="a b"), "tools[0].function.name"),
        (tool(name="f\n"), "tools[0].function.name"),
        (tool(name="å"), "tools[0].function.name"),
        (tool(name="x" * 65), "tools[0].function.name"),
        (tool(name=""), "tools[0].function.name"),
        (tool(description=3), "tools[0].function.description"),
        (tool(description="x" * 16385), "tools[0].function.description"),
        (tool(parameters=[]), "tools[0].function.parameters"),
        (tool(parameters={"type": "array"}), "tools[0].function.parameters.type"),
        (tool(parameters={"type": "object", "description": "x" * 65536}), "tools[0].function.parameters"),
        (tool(parameters=nested(65)), "tools[0].function.parameters"),
        (tool(strict="yes"), "tools[0].function.strict"),
        (tool(extra=1), "tools[0].function.extra"),
        ({"tools": [CLOCK], "tool_choice": "any"}, "tool_choice"),
        ({"tools": [CLOCK], "tool_choice": {"type": "function"}}, "tool_choice.function"),
        ({"tools": [CLOCK], "tool_choice": {"type": "allowed_tools"}}, "tool_choice.type"),
        (
            {"tools": [CLOCK], "tool_choice": {"type": "function", "function": {"name": "weather"}}},
            "tool_choice.function.name",
        ),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"tools": [], "tool_choice": {"type": "function", "function": {"name": "f"}}}, "tool_choice"),
        ({"tools": [CLOCK], "parallel_tool_calls": "no"}, "parallel_tool_calls"),
        ({"functions": [{"name": "f"}]}, "functions"),
        ({"function_call": {"name": "f"}}, "function_call"),
        ({"messages": [ASK, asked(call())]}, "messages[1].tool_calls"),
        ({"messages": [ASK, asked(call()), ASK]}, "messages[1].tool_calls"),
        ({"messages": [ASK, asked(call(), call("abcdefgh2")), result(), ASK]}, "messages[1].tool_calls"),
        ({"messages": [ASK, asked(call(), call()), result()]}, "messages[1].tool_calls[1].id"),
        ({"messages": [ASK, result()]}, "messages[1].tool_call_id"),
        ({"messages": [ASK, asked(call()), result("other")]}, "messages[2].tool_call_id"),
        ({"messages": [ASK, asked(call()), result(), result()]}, "messages[3].tool_call_id"),
        (
            {"messages": [ASK, asked(call()), result(), {"role": "assistant", "content": "x"}, result()]},
            "messages[4].tool_call_id",
        ),
        ({"messages": [ASK, asked(call()), {"role": "tool", "content": "x"}]}, "messages[2].tool_call_id"),
        ({"messages": [ASK, asked(call()), result(content=None)]}, "messages[2].content"),
        ({"messages": [{**ASK, "tool_calls": [call()]}]}, "messages[0].tool_calls"),
        ({"messages": [{**ASK, "tool_call_id": "abcdefgh1"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "assistant", "content": None, "tool_calls": []}]}, "messages[0].content"),
        ({"messages": [asked(*[call()] * 129)]}, "messages[0].tool_calls"),
        ({"messages": [{"role": "assistant", "tool_calls": {"0": call()}}]}, "messages[0].tool_calls"),
        ({"messages": [asked({})]}, "messages[0].tool_calls[0].function"),
        ({"messages": [asked({**call(), "type": "custom"})]}, "messages[0].tool_calls[0].type"),
        ({"messages": [asked({**call(), "id": None})]}, "messages[0].tool_calls[0].id"),
        ({"messages": [asked({**call(), "id": "x" * 257})]}, "messages[0].tool_calls[0].id"),
        ({"messages": [asked({**call(), "functoin": 1})]}, "messages[0].tool_calls[0].functoin"),
        (
            {"messages": [asked({**call(), "function": {"name": "a b", "arguments": ""}})]},
            "messages[0].tool_calls[0].function.name",
        ),
        (
            {"messages": [asked({**call(), "function": {"name": "f", "arguments": {}}})]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [asked(call(arguments="[" * 65 + "]" * 65))]},
            "messages[0].tool_calls[0].function.arguments",
        ),
        (
            {"messages": [asked(call(arguments='{"a":' * 10**5 + "1" + "}" * 10**5))]},
            "messages[0].tool_calls[0].function.arguments",
        ),
    ],
)
def test_what_is_wrong_is_named_by_its_path(array: Tokenizer, fields: dict[str, Any], param: str) -> None:
    reply = refused(array, **fields)
    assert reply.param == param
    assert param in reply.message


def test_64_levels_are_taken(array: Tokenizer) -> None:
    assert use(array, **tool(parameters=nested(64)))
    parsed = parse_messages([ASK, asked(call(arguments=json.dumps(nested(64)))), result()])
    assert parsed[1]["tool_calls"][0]["function"]["arguments"] == nested(64)


def test_a_template_may_not_outgrow_what_it_is_given(array: Tokenizer) -> None:
    odd = tool(description='\x01\\"' * 3000, parameters={"type": "object", "enum": [10**40, -1.5, None]})
    assert shown(array, [ASK], *odd["tools"])
