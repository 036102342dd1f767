"""LiteLLM: its providers for OpenAI's and for vLLM's servers, and its exceptions."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import litellm
import pytest

from .conftest import EN, SV, Full, Served
from .shapes import ASK, LONG, WEATHER, Answer

PROVIDERS = ("openai", "hosted_vllm")


def at(served: Served, model: str = EN, provider: str = "openai") -> dict[str, Any]:
    return {"model": f"{provider}/{model}", "api_base": served.url, "api_key": served.key, "max_retries": 0}


@pytest.mark.parametrize("provider", PROVIDERS)
def test_chat(server: Served, provider: str) -> None:
    answer = litellm.completion(**at(server, SV, provider), messages=ASK, max_tokens=20, temperature=0)
    assert answer.choices[0].message.content
    assert answer.usage.total_tokens > answer.usage.prompt_tokens
    assert answer._response_headers["x-oneseek-adapter"].startswith(SV)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_streams(server: Served, provider: str) -> None:
    asked = at(server, EN, provider) | {"messages": ASK, "max_tokens": 20, "temperature": 0}
    chunks = list(litellm.completion(**asked, stream=True, stream_options={"include_usage": True}))
    whole = litellm.completion(**asked).choices[0].message.content
    assert "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices) == whole
    assert litellm.stream_chunk_builder(chunks).usage.completion_tokens > 0


def test_async(server: Served) -> None:
    async def ask() -> str:
        answer = await litellm.acompletion(**at(server), messages=ASK, max_tokens=5)
        return answer.choices[0].message.content

    assert asyncio.run(ask())


def test_text_completion(server: Served) -> None:
    answer = litellm.text_completion(**at(server, "oneseek-mini"), prompt="One", max_tokens=5)
    assert answer.choices[0].text


@pytest.mark.parametrize("provider", PROVIDERS)
def test_structured_output(server: Served, provider: str) -> None:
    answer = litellm.completion(
        **at(server, EN, provider), messages=ASK, response_format=Answer, max_tokens=100
    )
    Answer.model_validate_json(answer.choices[0].message.content)


@pytest.mark.parametrize("provider", PROVIDERS)
def test_a_tool_round_trip(tool_server: Served, provider: str) -> None:
    asked = at(tool_server, "oneseek", provider) | {"tools": [WEATHER], "max_tokens": 200}
    first = litellm.completion(**asked, messages=ASK, tool_choice="required", parallel_tool_calls=False)
    message = first.choices[0].message
    (call,) = message.tool_calls
    assert json.loads(call.function.arguments)["city"] in ("Oslo", "Rome")
    history = [*ASK, message.model_dump(), {"role": "tool", "tool_call_id": call.id, "content": "sunny"}]
    assert litellm.completion(**asked, messages=history).choices[0].message.content


def test_reasoning_effort_is_ignored(server: Served) -> None:
    fields = {"reasoning_effort": "low", "allowed_openai_params": ["reasoning_effort"]}
    assert litellm.completion(**at(server), messages=ASK, max_tokens=2, **fields).choices


def test_errors_are_the_librarys_own(server: Served) -> None:
    with pytest.raises(litellm.NotFoundError):
        litellm.completion(**at(server, "nobody"), messages=ASK)
    with pytest.raises(litellm.AuthenticationError):
        litellm.completion(**at(server) | {"api_key": "wrong"}, messages=ASK)
    for provider in PROVIDERS:
        with pytest.raises(litellm.ContextWindowExceededError):
            litellm.completion(**at(server, EN, provider), messages=[{"role": "user", "content": LONG}])
    with pytest.raises(litellm.BadRequestError):
        litellm.embedding(**at(server, "oneseek-mini"), input=["text"])


def test_a_router_falls_back_when_the_context_is_too_long(server: Served) -> None:
    """It does so when it knows the error for one; a model with a longer context stands in for itself."""
    models = [
        {"model_name": "small", "litellm_params": at(server)},
        {"model_name": "large", "litellm_params": at(server) | {"mock_response": "from the large one"}},
    ]
    router = litellm.Router(model_list=models, context_window_fallbacks=[{"small": ["large"]}], num_retries=0)
    answer = router.completion("small", messages=[{"role": "user", "content": LONG}])
    assert answer.choices[0].message.content == "from the large one"


def test_a_full_queue_is_a_rate_limit(full_server: Full) -> None:
    with pytest.raises(litellm.RateLimitError):
        litellm.completion(**at(full_server), messages=ASK)
    full_server.release_soon()
    answer = litellm.completion(**at(full_server) | {"max_retries": 9}, messages=ASK, max_tokens=2)
    assert answer.choices
