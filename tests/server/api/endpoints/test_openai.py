"""The official client, sync and async, over everything it can ask of this server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI
from openai.types.chat import ChatCompletionMessageParam

from tests.server.http_server import EN, SV, Serving

pytestmark = pytest.mark.anyio

ASK: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Who are you?"}]
FRAGA: list[ChatCompletionMessageParam] = [{"role": "user", "content": "Vem är du?"}]


@pytest.fixture
def ai(serving: Serving) -> Iterator[OpenAI]:
    with OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


@pytest.fixture
async def async_ai(serving: Serving) -> AsyncIterator[AsyncOpenAI]:
    async with AsyncOpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0, timeout=60) as client:
        yield client


def test_a_chat(ai: OpenAI) -> None:
    answer = ai.chat.completions.create(model="oneseek", messages=FRAGA, max_tokens=8, temperature=0)
    assert answer.model == f"{SV}@v1.1"
    assert answer.object == "chat.completion"
    assert answer.choices[0].message.role == "assistant"
    assert answer.choices[0].finish_reason == "length"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == 8
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + 8


def test_the_receipt(ai: OpenAI) -> None:
    raw = ai.chat.completions.with_raw_response.create(
        model="oneseek", messages=ASK, max_tokens=2, extra_headers={"X-OneSeek-Adapter": f"{SV}@v1.0"}
    )
    assert raw.headers["x-oneseek-adapter"] == f"{SV}@v1.0"
    assert raw.parse().model == f"{SV}@v1.0"


def test_a_stream_joins_to_the_whole(ai: OpenAI) -> None:
    whole = ai.chat.completions.create(model=EN, messages=ASK, max_tokens=30, temperature=0)
    stream = ai.chat.completions.create(
        model=EN,
        messages=ASK,
        max_tokens=30,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(stream)
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert text == whole.choices[0].message.content
    assert chunks[0].choices[0].delta.role == "assistant"
    assert chunks[-1].choices == []
    assert chunks[-1].usage is not None
    assert whole.usage is not None
    assert chunks[-1].usage.completion_tokens == whole.usage.completion_tokens
    assert [c.choices[0].finish_reason for c in chunks if c.choices and c.choices[0].finish_reason] == [
        whole.choices[0].finish_reason
    ]


def test_the_streaming_helper(ai: OpenAI) -> None:
    free = ai.chat.completions.create(model=EN, messages=ASK, max_tokens=20, temperature=0)
    stop = (free.choices[0].message.content or "")[6:9]
    whole = ai.chat.completions.create(
        model=EN, messages=ASK, max_tokens=20, temperature=0, logprobs=True, stop=stop
    )
    with ai.chat.completions.stream(
        model=EN, messages=ASK, max_tokens=20, temperature=0, logprobs=True, stop=stop
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].finish_reason == whole.choices[0].finish_reason == "stop"
    assert final.choices[0].message.content == whole.choices[0].message.content
    assert final.choices[0].logprobs is not None
    assert whole.choices[0].logprobs is not None
    assert final.choices[0].logprobs.content == whole.choices[0].logprobs.content


def test_choices_and_seeds(ai: OpenAI) -> None:
    def ask(seed: int) -> list[str | None]:
        answer = ai.chat.completions.create(
            model=EN, messages=ASK, max_tokens=12, n=3, seed=seed, temperature=1.5
        )
        assert [choice.index for choice in answer.choices] == [0, 1, 2]
        return [choice.message.content for choice in answer.choices]

    assert ask(7) == ask(7)
    assert ask(7) != ask(8)
    assert len(set(ask(7))) == 3


def test_log_probabilities(ai: OpenAI) -> None:
    answer = ai.chat.completions.create(
        model=EN, messages=ASK, max_tokens=5, temperature=0, logprobs=True, top_logprobs=4
    )
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert len(logprobs.content) == 5
    for entry in logprobs.content:
        assert len(entry.top_logprobs) == 4
        assert entry.logprob == entry.top_logprobs[0].logprob, "greedy takes the likeliest"
        assert entry.token == entry.top_logprobs[0].token


def test_stops(ai: OpenAI) -> None:
    free = (
        ai.completions.create(model=EN, prompt="Who are you?", max_tokens=40, temperature=0).choices[0].text
    )
    assert len(free) > 8
    stop = free[5:7]
    stopped = ai.completions.create(
        model=EN, prompt="Who are you?", max_tokens=40, temperature=0, stop=[stop]
    )
    assert stopped.choices[0].text == free[: free.index(stop)]
    assert stopped.choices[0].finish_reason == "stop"


def test_biases_and_vllms_extras(ai: OpenAI, serving: Serving) -> None:
    answer = ai.chat.completions.create(
        model=EN, messages=ASK, max_tokens=5, temperature=0, logit_bias={"70": 100}, logprobs=True
    )
    text = answer.choices[0].message.content
    assert text is not None
    extra = ai.chat.completions.create(
        model=EN, messages=ASK, max_tokens=5, extra_body={"top_k": 1, "min_tokens": 5, "ignore_eos": True}
    )
    greedy = ai.chat.completions.create(
        model=EN, messages=ASK, max_tokens=5, temperature=0, extra_body={"ignore_eos": True}
    )
    assert extra.choices[0].message.content == greedy.choices[0].message.content


def test_completions(ai: OpenAI) -> None:
    answer = ai.completions.create(
        model=EN, prompt=["Who", "Vem"], max_tokens=4, n=2, logprobs=1, temperature=0
    )
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    logprobs = answer.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.tokens is not None
    assert len(logprobs.tokens) == 4
    stream = ai.completions.create(model=EN, prompt="Who", max_tokens=4, temperature=0, stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == answer.choices[0].text


def test_models(ai: OpenAI) -> None:
    names = [model.id for model in ai.models.list()]
    assert "oneseek" in names
    assert ai.models.retrieve(f"{SV}@v1.0").id == f"{SV}@v1.0"


def test_errors_are_the_clients_own_exceptions(ai: OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as unknown:
        ai.chat.completions.create(model="gpt-4", messages=ASK)
    assert (unknown.value.code, unknown.value.param) == ("model_not_found", "model")
    with pytest.raises(openai.BadRequestError) as bad:
        ai.chat.completions.create(model=EN, messages=ASK, temperature=3)
    assert bad.value.param == "temperature"
    with pytest.raises(openai.BadRequestError) as stream:
        ai.chat.completions.create(model=EN, messages=ASK, max_tokens=10_000, stream=True)
    assert stream.value.code == "context_length_exceeded"
    with pytest.raises(openai.BadRequestError) as tools:
        ai.chat.completions.create(
            model=EN, messages=ASK, tools=[{"type": "function", "function": {"name": "f"}}]
        )
    assert tools.value.param == "tools"


async def test_the_async_client(async_ai: AsyncOpenAI) -> None:
    async def ask(number: int) -> tuple[str, str]:
        model = (EN, SV, f"{SV}@v1.0", "tiny")[number % 4]
        whole = await async_ai.chat.completions.create(
            model=model, messages=ASK, max_tokens=10, temperature=0
        )
        stream = await async_ai.chat.completions.create(
            model=model, messages=ASK, max_tokens=10, temperature=0, stream=True
        )
        text = ""
        async for chunk in stream:
            text += chunk.choices[0].delta.content or ""
        assert text == whole.choices[0].message.content
        return model, text

    answers = set(await asyncio.gather(*(ask(number) for number in range(16))))
    assert len(answers) == 4, "each voice says one thing, and no two the same"


async def test_async_errors(async_ai: AsyncOpenAI) -> None:
    with pytest.raises(openai.NotFoundError):
        await async_ai.completions.create(model="none", prompt="x")
