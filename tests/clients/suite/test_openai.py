"""OpenAI's own library for Python."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import openai
import pytest

from .conftest import EN, SV, Full, Served
from .shapes import ASK, LONG, WEATHER, Answer


@pytest.fixture
def client(server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url, api_key=server.key, max_retries=0)


@pytest.fixture
def tools(tool_server: Served) -> openai.OpenAI:
    return openai.OpenAI(base_url=tool_server.url, api_key=tool_server.key, max_retries=0)


def test_models(client: openai.OpenAI) -> None:
    names = {model.id for model in client.models.list()}
    assert {"oneseek", "oneseek-mini", EN, SV} <= names
    assert client.models.retrieve(SV).id == SV


@pytest.mark.parametrize("role", ["system", "developer"])
def test_chat(client: openai.OpenAI, role: str) -> None:
    answer = client.chat.completions.create(
        model="oneseek", messages=[{"role": role, "content": "Be brief."}, *ASK], max_tokens=30, temperature=0
    )
    assert answer.choices[0].message.content
    assert answer.choices[0].finish_reason in ("stop", "length")
    assert answer.usage
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens
    assert answer.usage.prompt_tokens_details
    assert answer.usage.prompt_tokens_details.cached_tokens is not None
    assert answer.system_fingerprint


def test_a_stream_says_what_the_whole_answer_says(client: openai.OpenAI) -> None:
    asked: Any = {"model": EN, "messages": ASK, "max_tokens": 40, "temperature": 0}
    whole = client.chat.completions.create(**asked)
    chunks = list(
        client.chat.completions.create(**asked, stream=True, stream_options={"include_usage": True})
    )
    assert (
        "".join(c.choices[0].delta.content or "" for c in chunks if c.choices)
        == whole.choices[0].message.content
    )
    assert chunks[-1].usage
    assert whole.usage
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens


def test_async_requests_side_by_side(server: Served) -> None:
    async def ask() -> set[str | None]:
        async with openai.AsyncOpenAI(base_url=server.url, api_key=server.key) as client:
            asked = (
                client.chat.completions.create(model=EN, messages=ASK, max_tokens=20, seed=7, temperature=1)
                for _ in range(4)
            )
            return {answer.choices[0].message.content for answer in await asyncio.gather(*asked)}

    assert len(asyncio.run(ask())) == 1


def test_an_adapter_by_model_and_by_header(client: openai.OpenAI) -> None:
    raw = client.chat.completions.with_raw_response
    by_model = raw.create(model=SV, messages=ASK, max_tokens=1)
    by_header = raw.create(
        model="oneseek", messages=ASK, max_tokens=1, extra_headers={"X-OneSeek-Adapter": SV}
    )
    for answer in (by_model, by_header):
        assert answer.headers["X-OneSeek-Adapter"].startswith(SV)


def test_choices_stop_and_log_probabilities(client: openai.OpenAI) -> None:
    answer = client.chat.completions.create(
        model=EN, messages=ASK, max_tokens=30, n=3, stop=["."], seed=1, logprobs=True, top_logprobs=2
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    for choice in answer.choices:
        assert "." not in (choice.message.content or "")
        assert choice.logprobs
        assert choice.logprobs.content
        assert all(len(token.top_logprobs) == 2 for token in choice.logprobs.content)


def test_completions(client: openai.OpenAI) -> None:
    answer = client.completions.create(
        model="oneseek-mini", prompt=["One", "Two"], max_tokens=5, echo=True, logprobs=1
    )
    assert [choice.text[:3] for choice in answer.choices] == ["One", "Two"]
    assert answer.choices[0].logprobs
    chunks = client.completions.create(model="oneseek-mini", prompt="One", max_tokens=5, stream=True)
    assert len(list(chunks)) > 1


def test_responses(client: openai.OpenAI) -> None:
    answer = client.responses.create(model=EN, input="Who are you?", max_output_tokens=30, temperature=0)
    assert answer.output_text
    with client.responses.stream(
        model=EN, input="Who are you?", max_output_tokens=30, temperature=0
    ) as stream:
        events = list(stream)
        assert stream.get_final_response().output_text == answer.output_text
    assert events[-1].type in ("response.completed", "response.incomplete")


def test_parsing_into_a_model(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(model=EN, messages=ASK, response_format=Answer)
    assert isinstance(answer.choices[0].message.parsed, Answer)


def test_a_schema_that_does_not_close_its_object(client: openai.OpenAI) -> None:
    form: Any = {"type": "json_schema", "json_schema": {"name": "a", "schema": Answer.model_json_schema()}}
    for seed in range(4):
        answer = client.chat.completions.create(
            model="oneseek", messages=ASK, response_format=form, max_tokens=100, seed=seed, temperature=1
        )
        assert set(json.loads(answer.choices[0].message.content or "")) == {"colour", "certain", "tags"}


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "get_weather"}}])
def test_a_tool_round_trip(tools: openai.OpenAI, choice: Any) -> None:
    first = tools.chat.completions.create(
        model="oneseek", messages=ASK, tools=[WEATHER], tool_choice=choice, max_tokens=200,
        parallel_tool_calls=False,
    )  # fmt: skip
    message = first.choices[0].message
    assert message.tool_calls
    (call,) = message.tool_calls
    assert call.type == "function"
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    history = [*ASK, message, {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    second = tools.chat.completions.create(model="oneseek", messages=history, tools=[WEATHER], max_tokens=20)
    assert second.choices[0].message.content


def test_streamed_tool_calls(tools: openai.OpenAI) -> None:
    with tools.chat.completions.stream(
        model="oneseek",
        messages=ASK,
        tools=[WEATHER],
        tool_choice="required",
        max_tokens=200,
        parallel_tool_calls=False,
    ) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_completion()
    assert "tool_calls.function.arguments.delta" in kinds
    assert final.choices[0].finish_reason == "tool_calls"


def test_named_tools_on_a_base_without_a_template_for_them(client: openai.OpenAI) -> None:
    named: Any = {"type": "function", "function": {"name": "get_weather"}}
    answer = client.chat.completions.create(
        model="oneseek", messages=ASK, tools=[WEATHER], tool_choice=named, max_tokens=200
    )
    assert answer.choices[0].message.tool_calls


def test_errors_are_the_librarys_own(client: openai.OpenAI, server: Served) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        client.chat.completions.create(model="nobody", messages=ASK)
    assert unknown.value.code == "model_not_found"
    with pytest.raises(openai.AuthenticationError):
        openai.OpenAI(base_url=server.url, api_key="wrong").models.list()
    with pytest.raises(openai.BadRequestError) as large:
        client.chat.completions.create(model=EN, messages=[{"role": "user", "content": LONG}])
    assert large.value.code == "context_length_exceeded"
    assert "maximum context length is 1024 tokens" in large.value.message
    with pytest.raises(openai.BadRequestError):
        client.embeddings.create(model="oneseek-mini", input="text")


def test_a_full_queue_is_a_rate_limit(full_server: Full) -> None:
    client = openai.OpenAI(base_url=full_server.url, api_key=full_server.key)
    with pytest.raises(openai.RateLimitError):
        client.with_options(max_retries=0).chat.completions.create(model=EN, messages=ASK)
    full_server.release_soon()
    answer = client.with_options(max_retries=9).chat.completions.create(model=EN, messages=ASK, max_tokens=2)
    assert answer.choices


def test_fields_of_others(client: openai.OpenAI) -> None:
    extra = {"chat_template_kwargs": {}, "reasoning_effort": "low", "user": None, "some_gateways_own": 1}
    answer = client.chat.completions.create(model=EN, messages=ASK, max_tokens=2, extra_body=extra)
    assert answer.choices
