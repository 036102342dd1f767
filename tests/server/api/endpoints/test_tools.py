"""Tools through the official client: a random model calls them, in both formats, whole and streamed."""

from __future__ import annotations

import json
import string
from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import openai
import pytest
from openai import OpenAI
from openai.types.chat import ChatCompletion, ChatCompletionChunk, ChatCompletionMessageParam
from openai.types.chat.chat_completion_message_function_tool_call import (
    ChatCompletionMessageFunctionToolCall as FunctionCall,
)

from server.config.settings import Settings
from server.text.tokenizer import Tokenizer
from tests.server.http_server import Serving, make_app, served
from tests.server.tool_bases import write_tool_base

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "How warm is it?"}]
PLACES = ["Umeå", "Oslo", 'a "b" {c}']


def function(name: str, **properties: Any) -> Any:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(properties),
        "additionalProperties": False,
        "$defs": {"day": {"type": "integer", "minimum": 1, "maximum": 9}},
    }
    return {"type": "function", "function": {"name": name, "parameters": parameters}}


TOOLS = [
    function("weather", place={"enum": PLACES}, day={"$ref": "#/$defs/day"}),
    function("clock", exact={"type": "boolean"}),
]


@pytest.fixture(scope="module", params=["array", "named"])
def base(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_tool_base(tmp_path_factory.mktemp(request.param) / "base", request.param)


@pytest.fixture(scope="module")
def running(base: Path, engine_kind: str) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=8, max_queue=64, log_level="warning", drain_seconds=2)
    with served(
        make_app(base, {}, base.parent / "graphs", settings, engine=engine_kind), settings, {}
    ) as serving:
        yield serving


@pytest.fixture
def ai(running: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{running.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def ask(ai: OpenAI, **fields: Any) -> ChatCompletion:
    defaults: dict[str, Any] = {"messages": ASK, "tools": TOOLS, "max_tokens": 200, "temperature": 1.2}
    return cast(ChatCompletion, ai.chat.completions.create(model="oneseek", **(defaults | fields)))


def stream(ai: OpenAI, **fields: Any) -> list[ChatCompletionChunk]:
    return list(cast(Any, ask(ai, stream=True, **fields)))


def check(call: FunctionCall) -> str:
    assert len(call.id) == 9
    assert set(call.id) <= set(string.ascii_letters + string.digits)
    arguments = json.loads(call.function.arguments)
    if call.function.name == "weather":
        assert arguments.pop("place") in PLACES
        assert arguments.pop("day") in range(1, 10)
    else:
        assert call.function.name == "clock"
        assert isinstance(arguments.pop("exact"), bool)
    assert not arguments
    return call.function.name


def checked(answer: ChatCompletion) -> list[list[str]]:
    """The names of each choice's calls, which fit their schemas."""
    names: list[list[str]] = []
    for choice in answer.choices:
        calls = cast("list[FunctionCall]", choice.message.tool_calls or [])
        assert len({call.id for call in calls}) == len(calls)
        names.append([check(call) for call in calls])
    return names


def test_required_calls_fit_their_schemas(ai: OpenAI) -> None:
    names: list[list[str]] = []
    for seed in range(4):
        answer = ask(ai, tool_choice="required", n=6, seed=seed, temperature=2, max_tokens=450)
        for choice in answer.choices:
            assert choice.message.content is None
            assert choice.finish_reason == "tool_calls"
        names += checked(answer)
    assert all(names)
    assert {name for calls in names for name in calls} == {"weather", "clock"}
    assert max(map(len, names)) > 1, "some answers hold several calls"


def test_one_call_where_several_are_not_wanted(ai: OpenAI) -> None:
    answer = ask(ai, tool_choice="required", parallel_tool_calls=False, n=8, seed=3)
    assert [len(calls) for calls in checked(answer)] == [1] * 8


def test_a_named_tool_is_called_once(ai: OpenAI) -> None:
    choice = {"type": "function", "function": {"name": "clock"}}
    answer = ask(ai, tool_choice=choice, n=4, seed=1)
    assert checked(answer) == [["clock"]] * 4
    assert {choice.finish_reason for choice in answer.choices} == {"stop"}
    chunks = stream(ai, tool_choice=choice, seed=1)
    assert chunks[-1].choices[0].finish_reason == "stop"


def without_ids(calls: list[dict[str, Any]]) -> list[tuple[str, str]]:
    return [(call["function"]["name"], call["function"]["arguments"]) for call in calls]


@pytest.mark.parametrize("logprobs", [False, True])
@pytest.mark.parametrize("choice", ["required", "auto"])
def test_a_stream_joins_to_the_whole(ai: OpenAI, logprobs: bool, choice: str) -> None:
    fields: dict[str, Any] = {
        "tool_choice": choice,
        "n": 3,
        "seed": 5,
        "logprobs": logprobs,
    }
    whole = ask(ai, **fields)
    chunks = stream(ai, **fields, stream_options={"include_usage": True})
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    for expected in whole.choices:
        parts = [c for chunk in chunks for c in chunk.choices if c.index == expected.index]
        assert parts[0].delta.role == "assistant"
        assert parts[0].delta.content == (None if choice == "required" else "")
        calls: list[dict[str, Any]] = []
        for part in parts:
            for call in part.delta.tool_calls or []:
                assert call.function is not None
                if call.index == len(calls):
                    assert call.type == "function"
                    assert call.function.arguments == ""
                    calls.append({"function": {"name": call.function.name, "arguments": ""}})
                else:
                    assert call.index == len(calls) - 1
                    assert (call.id, call.type, call.function.name) == (None, None, None)
                    calls[-1]["function"]["arguments"] += call.function.arguments
        message = expected.message.model_dump()
        assert without_ids(calls) == without_ids(message["tool_calls"] or [])
        assert "".join(part.delta.content or "" for part in parts) == (message["content"] or "")
        assert [part.finish_reason for part in parts if part.finish_reason] == [expected.finish_reason]
        if logprobs:
            assert expected.logprobs is not None
            found = [entry for part in parts if part.logprobs for entry in part.logprobs.content or []]
            assert found == expected.logprobs.content


def test_arguments_stream_as_they_are_written(ai: OpenAI) -> None:
    chunks = stream(ai, tool_choice={"type": "function", "function": {"name": "weather"}}, seed=2)
    deltas = [chunk.choices[0].delta.tool_calls or [] for chunk in chunks]
    fragments = [calls[0].function.arguments for calls in deltas if calls and calls[0].function]
    assert len(fragments) > 4, "the call does not come at once"
    assert json.loads("".join(map(str, fragments)))["place"] in PLACES


def test_the_streaming_helper(ai: OpenAI) -> None:
    fields: dict[str, Any] = {"tool_choice": "required", "parallel_tool_calls": False, "max_tokens": 200}
    with ai.chat.completions.stream(model="oneseek", messages=ASK, tools=TOOLS, seed=4, **fields) as events:
        final = events.get_final_completion()
    assert all(checked(cast(ChatCompletion, final)))
    assert final.choices[0].finish_reason == "tool_calls"


def test_a_conversation_goes_on_with_the_results(ai: OpenAI) -> None:
    first = ask(ai, tool_choice="required", seed=6, parallel_tool_calls=False)
    message = first.choices[0].message
    assert message.tool_calls
    for said in (message, message.model_dump()):
        results = [
            {"role": "tool", "tool_call_id": call.id, "content": '{"degrees": 3}'}
            for call in message.tool_calls
        ]
        messages = [*ASK, said, *results]
        second = ask(ai, messages=messages, max_tokens=8, tool_choice="none")
        assert not second.choices[0].message.tool_calls
        assert second.usage is not None
        assert first.usage is not None
        third = ask(ai, messages=messages, tool_choice="required", parallel_tool_calls=False)
        assert all(checked(third))
        assert third.usage is not None
        assert third.usage.prompt_tokens > first.usage.prompt_tokens


def test_an_answer_that_is_cut_keeps_what_came(ai: OpenAI) -> None:
    fields: dict[str, Any] = {"tool_choice": {"type": "function", "function": {"name": "weather"}}, "seed": 2}
    whole = cast("list[FunctionCall]", ask(ai, **fields).choices[0].message.tool_calls)[0]
    tokens = 1
    cut: list[str] = []
    while len(cut) < 3:
        choice = ask(ai, **fields, max_tokens=tokens).choices[0]
        assert choice.finish_reason == "length"
        calls = cast("list[FunctionCall]", choice.message.tool_calls or [])
        if calls:
            assert choice.message.content is None
            assert whole.function.arguments.startswith(calls[0].function.arguments)
            cut.append(calls[0].function.arguments)
        else:
            assert (choice.message.content or "").startswith("[TOOL_CALLS]")
        tokens += 1
    assert len(set(cut)) == 3


def test_what_is_no_call_comes_back_as_text(ai: OpenAI, base: Path) -> None:
    begin = Tokenizer.load(base).added_id("[TOOL_CALLS]")
    fields: dict[str, Any] = {"logit_bias": {str(begin): 100}, "temperature": 0, "max_tokens": 3}
    choice = ask(ai, **fields).choices[0]
    assert choice.message.content == "[TOOL_CALLS]" * 3
    assert choice.message.tool_calls is None
    assert choice.finish_reason == "length"
    chunks = stream(ai, **fields)
    assert "".join(c.choices[0].delta.content or "" for c in chunks) == choice.message.content
    hidden = ask(ai, **fields, tool_choice="none").choices[0]
    assert hidden.message.content == "", "without tools the token is none of the text"


def test_an_answer_is_calls_or_has_its_form(ai: OpenAI, base: Path) -> None:
    form = {"type": "json_schema", "json_schema": {"name": "warm", "schema": {"enum": [{"warm": True}]}}}
    begin = str(Tokenizer.load(base).added_id("[TOOL_CALLS]"))
    fields: dict[str, Any] = {"response_format": form, "parallel_tool_calls": False, "n": 3}
    called = ask(ai, **fields, logit_bias={begin: 100})
    assert all(checked(called))
    assert {choice.finish_reason for choice in called.choices} == {"tool_calls"}
    told = ask(ai, **fields, logit_bias={begin: -100})
    assert not any(checked(told))
    for choice in told.choices:
        assert json.loads(choice.message.content or "") == {"warm": True}
        assert choice.finish_reason == "stop"
    assert all(checked(ask(ai, **fields, tool_choice="required")))


def test_tools_that_cannot_be_held_to_are_refused(ai: OpenAI) -> None:
    bad = function("bad", place={"type": "string", "pattern": "(?=x)"})
    with pytest.raises(openai.BadRequestError) as compiled:
        ask(ai, tools=[bad], tool_choice="required")
    assert compiled.value.param == "tools"
    with pytest.raises(openai.BadRequestError) as remote:
        ask(ai, tools=[function("f", x={"$ref": "http://example.com"})], tool_choice="required")
    assert remote.value.param == "tools[0].function.parameters"
    for choice in ("auto", "required"):
        with pytest.raises(openai.BadRequestError) as invalid:
            ask(ai, tools=[function("f", x={"type": "strin"})], tool_choice=choice)
        assert invalid.value.param == "tools[0].function.parameters.properties.x.type"
    with pytest.raises(openai.BadRequestError) as both:
        ask(ai, extra_body={"guided_regex": "x"})
    assert both.value.param == "guided_regex"
    assert ask(ai, tools=[bad], max_tokens=2).choices, "nothing is held to it where the model may choose"


def test_tokens_of_a_conversation_with_tools(running: Serving) -> None:
    body = {"messages": ASK, "tools": TOOLS, "return_token_strs": True}
    found = running.http.post("/tokenize", json=body).json()
    assert "weather" in "".join(found["token_strs"])
    asked = {"messages": ASK, "tools": TOOLS, "max_tokens": 1, "return_token_ids": True}
    answer = running.http.post("/v1/chat/completions", json=asked).json()
    assert answer["prompt_token_ids"] == found["tokens"]
    alone = running.http.post("/tokenize", json={"prompt": "hi", "tools": TOOLS})
    assert (alone.status_code, alone.json()["error"]["param"]) == (400, "tools")
