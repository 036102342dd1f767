"""`/v1/responses` through the official client: whole, streamed, helped, raw."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Literal

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.responses import Response, ResponseOutputMessage, ResponseStreamEvent
from pydantic import BaseModel

from tests.server.http_server import EN, SV, Serving

pytestmark = pytest.mark.anyio

ASK: dict[str, Any] = {"model": EN, "input": "Who are you?", "max_output_tokens": 12, "temperature": 0}
ORDER = [
    "response.created",
    "response.in_progress",
    "response.output_item.added",
    "response.content_part.added",
    "response.output_text.delta",
    "response.output_text.done",
    "response.content_part.done",
    "response.output_item.done",
]


@pytest.fixture
def ai(serving: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def text_stop(ai: OpenAI) -> str:
    """What the greedy answer says in its middle: a stop string that ends it early."""
    return ai.responses.create(**ASK).output_text[4:7]


def kinds(events: list[ResponseStreamEvent]) -> list[str]:
    """The types of `events`, one of each run of deltas."""
    return [e.type for i, e in enumerate(events) if i == 0 or e.type != events[i - 1].type]


def test_a_response_is_what_a_chat_would_say(ai: OpenAI) -> None:
    answer = ai.responses.create(**ASK)
    chat = ai.chat.completions.create(
        model=EN, messages=[{"role": "user", "content": "Who are you?"}], max_tokens=12, temperature=0
    )
    assert answer.output_text == chat.choices[0].message.content
    assert answer.id.startswith("resp_")
    assert (answer.object, answer.model, answer.status) == ("response", f"{EN}@v1.1", "incomplete")
    assert answer.incomplete_details is not None
    assert answer.incomplete_details.reason == "max_output_tokens"
    assert answer.completed_at is None
    assert answer.usage is not None
    assert chat.usage is not None
    assert answer.usage.input_tokens == chat.usage.prompt_tokens
    assert (answer.usage.output_tokens, answer.usage.output_tokens_details.reasoning_tokens) == (12, 0)
    assert answer.usage.total_tokens == answer.usage.input_tokens + 12
    (message,) = answer.output
    assert isinstance(message, ResponseOutputMessage)
    assert (message.role, message.status, message.id[:4]) == ("assistant", "incomplete", "msg_")


def test_a_response_that_ends_by_itself_is_complete(ai: OpenAI) -> None:
    answer = ai.responses.create(**ASK, extra_body={"stop": text_stop(ai)})
    assert (answer.status, answer.incomplete_details, answer.error) == ("completed", None, None)
    assert answer.completed_at is not None
    assert answer.completed_at >= answer.created_at
    Response.model_validate_json(answer.to_json())


def test_every_part_of_the_answer_is_of_the_official_shape(ai: OpenAI) -> None:
    raw = ai.responses.with_raw_response.create(
        **ASK, include=["message.output_text.logprobs"], top_logprobs=2, extra_body={"stop": text_stop(ai)}
    )
    assert raw.headers["x-oneseek-adapter"] == f"{EN}@v1.1"
    assert raw.headers["x-oneseek-route"].startswith("model;")
    checked = Response.model_validate_json(raw.http_response.text)
    assert checked.output_text == raw.parse().output_text


def test_a_stream_joins_to_the_whole(ai: OpenAI) -> None:
    whole = ai.responses.create(**ASK)
    events = list(ai.responses.create(**ASK, stream=True))
    assert kinds(events) == [*ORDER, "response.incomplete"]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == whole.output_text
    last = events[-1]
    assert last.type == "response.incomplete"
    same = {"output_text", "usage", "model", "incomplete_details", "instructions", "text"}
    for name in same:
        assert getattr(last.response, name) == getattr(whole, name)
    first = events[0]
    assert first.type == "response.created"
    assert (first.response.status, first.response.output, first.response.usage) == ("in_progress", [], None)
    assert first.response.id == last.response.id


def test_every_event_is_of_the_official_shape(ai: OpenAI) -> None:
    from openai.types.responses import ResponseStreamEvent as Event
    from pydantic import TypeAdapter

    adapter: TypeAdapter[Any] = TypeAdapter(Event)
    raw = ai.responses.with_raw_response.create(
        **ASK, stream=True, include=["message.output_text.logprobs"], top_logprobs=2
    )
    seen = 0
    for block in raw.http_response.read().decode().split("\n\n")[:-1]:
        kind, data = block.split("\n")
        event = adapter.validate_json(data.removeprefix("data: "))
        assert kind == f"event: {event.type}"
        seen += 1
    assert seen > len(ORDER)


def test_the_streaming_helper(ai: OpenAI) -> None:
    stop = text_stop(ai)
    whole = ai.responses.create(**ASK, extra_body={"stop": stop})
    with ai.responses.stream(**ASK, extra_body={"stop": stop}) as stream:
        events = list(stream)
        final = stream.get_final_response()
    assert [e.type for e in events if "delta" not in e.type] == [
        *(kind for kind in ORDER if "delta" not in kind),
        "response.completed",
    ]
    assert final.output_text == whole.output_text
    assert final.status == "completed"
    assert final.usage == whole.usage


@pytest.mark.parametrize("stored", [True, False])
def test_a_conversation_goes_on_by_sending_it_back(ai: OpenAI, stored: bool) -> None:
    turns: list[Any] = [{"role": "user", "content": "Who are you?"}]
    first = ai.responses.create(
        model=EN,
        input=turns,
        max_output_tokens=8,
        store=stored,
        include=["message.output_text.logprobs", "reasoning.encrypted_content"],
    )
    turns += [item.to_dict() for item in first.output]
    turns.append({"role": "user", "content": [{"type": "input_text", "text": "And now?"}]})
    second = ai.responses.create(model=EN, input=turns, max_output_tokens=8, temperature=0)
    chat = ai.chat.completions.create(
        model=EN,
        messages=[
            {"role": "user", "content": "Who are you?"},
            {"role": "assistant", "content": first.output_text},
            {"role": "user", "content": "And now?"},
        ],
        max_tokens=8,
        temperature=0,
    )
    assert second.output_text == chat.choices[0].message.content


def test_log_probabilities(ai: OpenAI) -> None:
    ask: dict[str, Any] = ASK | {"include": ["message.output_text.logprobs"], "top_logprobs": 3}
    whole: Response = ai.responses.create(**ask)
    (message,) = whole.output
    assert isinstance(message, ResponseOutputMessage)
    (part,) = message.content
    assert part.type == "output_text"
    assert part.logprobs is not None
    assert len(part.logprobs) == 12
    for entry in part.logprobs:
        assert len(entry.top_logprobs) == 3
        assert entry.token == entry.top_logprobs[0].token, "greedy takes the likeliest"
    events = list(ai.responses.create(**ask, stream=True))
    streamed = [
        entry for event in events if event.type == "response.output_text.delta" for entry in event.logprobs
    ]
    assert [entry.logprob for entry in streamed] == [entry.logprob for entry in part.logprobs]
    (done,) = [event for event in events if event.type == "response.output_text.done"]
    assert [entry.token for entry in done.logprobs] == [entry.token for entry in part.logprobs]


class Person(BaseModel):
    name: Literal["Eva", "Bo"]
    age: Literal[1, 2, 3]


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_a_schema_is_kept_to(ai: OpenAI, seed: int) -> None:
    parsed = ai.responses.parse(
        model=EN, input="Who?", max_output_tokens=100, text_format=Person, extra_body={"seed": seed}
    )
    assert parsed.output_parsed is not None
    assert parsed.status == "completed"
    assert parsed.text is not None
    assert parsed.text.format is not None
    assert parsed.text.format.type == "json_schema"
    with ai.responses.stream(
        model=EN, input="Who?", max_output_tokens=100, text_format=Person, extra_body={"seed": seed}
    ) as stream:
        assert stream.get_final_response().output_parsed == parsed.output_parsed


def test_any_json_object(ai: OpenAI) -> None:
    ask: dict[str, Any] = {"model": EN, "input": "Who?", "max_output_tokens": 60, "temperature": 0}
    answer: Response = ai.responses.create(**ask, text={"format": {"type": "json_object"}})
    assert answer.output_text.lstrip().startswith("{")
    if answer.status == "completed":
        assert isinstance(json.loads(answer.output_text), dict)


def test_errors_are_the_clients_own_exceptions(ai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ai.responses.create(model="gpt-6", input="Hej")
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with (
        pytest.raises(openai.BadRequestError) as bad,
        ai.responses.stream(model=EN, input="Hej", max_output_tokens=10_000),
    ):
        pass
    assert bad.value.param == "max_output_tokens"
    with pytest.raises(openai.BadRequestError) as kept:
        ai.responses.create(model=EN, input="Hej", previous_response_id="resp_1")
    assert kept.value.param == "previous_response_id"
    with pytest.raises(openai.NotFoundError):
        ai.responses.retrieve("resp_1")


async def test_the_async_client(serving: Serving) -> None:
    async with AsyncOpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0, timeout=60) as ai:
        ask: dict[str, Any] = ASK | {"model": SV}
        whole: Response = await ai.responses.create(**ask)
        text = ""
        async with ai.responses.stream(**ask) as stream:
            async for event in stream:
                if event.type == "response.output_text.delta":
                    text += event.delta
                    assert event.snapshot == text
        assert text == whole.output_text
