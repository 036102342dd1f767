"""What does not fit is said as OpenAI says it: LiteLLM and LangChain fall back by these words."""

from __future__ import annotations

from typing import Any

import httpx
import openai
import pytest

from server.engines.shared.admission import check_fits
from server.errors import ContextExceededError
from server.request import GenerationRequest, Sampling
from tests.server.http_server import CONTEXT, Serving

WORDS = f"This model's maximum context length is {CONTEXT} tokens. However, "
LONG = "many words " * 4000
MESSAGES = [{"role": "user", "content": "hi"}]
REQUESTS: dict[str, tuple[str, dict[str, Any], str]] = {
    "chat": ("/v1/chat/completions", {"messages": MESSAGES, "max_tokens": CONTEXT}, "max_tokens"),
    "chat-new": (
        "/v1/chat/completions",
        {"messages": MESSAGES, "max_completion_tokens": CONTEXT},
        "max_completion_tokens",
    ),
    "chat-prompt": ("/v1/chat/completions", {"messages": [{"role": "user", "content": LONG}]}, "messages"),
    "stream": (
        "/v1/chat/completions",
        {"messages": MESSAGES, "max_tokens": CONTEXT, "stream": True},
        "max_tokens",
    ),
    "text": ("/v1/completions", {"prompt": "hi", "max_tokens": CONTEXT}, "max_tokens"),
    "text-prompt": ("/v1/completions", {"prompt": "hi there " * 300}, "prompt"),
    "text-ids": ("/v1/completions", {"prompt": [1] * (CONTEXT + 1)}, "prompt"),
    "responses": ("/v1/responses", {"input": "hi", "max_output_tokens": CONTEXT}, "max_output_tokens"),
    "responses-prompt": ("/v1/responses", {"input": LONG}, "input"),
    "legacy": ("/inference/oneseek", {"text": LONG}, "text"),
}


@pytest.mark.parametrize("name", REQUESTS)
def test_every_way_in_says_the_same(client: httpx.Client, name: str) -> None:
    path, body, param = REQUESTS[name]
    answer = client.post(path, json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"], error["param"]) == (400, "context_length_exceeded", param)
    assert error["message"].startswith(WORDS)


def test_the_client_finds_code_and_words(serving: Serving) -> None:
    with (
        openai.OpenAI(base_url=serving.url + "/v1", api_key="none", max_retries=0) as client,
        pytest.raises(openai.BadRequestError) as caught,
    ):
        client.completions.create(model="tiny", prompt="hi", max_tokens=CONTEXT)
    assert caught.value.code == "context_length_exceeded"
    # What LangChain and LiteLLM look for in the text of the error.
    assert "context_length_exceeded" in str(caught.value)
    assert "this model's maximum context length is" in str(caught.value).lower()


@pytest.mark.parametrize("held", [CONTEXT, 20])
def test_engines_say_it_too(serving: Serving, held: int) -> None:
    """Of the context and of a KV cache that holds less."""
    asked = CONTEXT if held == CONTEXT else 30
    request = GenerationRequest(request_id="r", prompt=(1,), sampling=Sampling(max_tokens=asked))
    with pytest.raises(ContextExceededError) as caught:
        check_fits(request, serving.engine.info, held)
    assert f"maximum context length is {held} tokens" in str(caught.value)


@pytest.mark.parametrize("path", ["/v1/chat/completions", "/v1/completions"])
def test_every_usage_has_its_cached_tokens(client: httpx.Client, path: str) -> None:
    body: dict[str, Any] = {"max_tokens": 2, "model": "tiny"}
    body |= {"messages": MESSAGES} if "chat" in path else {"prompt": "hi"}
    whole = client.post(path, json=body).json()["usage"]
    streamed = client.post(path, json=body | {"stream": True, "stream_options": {"include_usage": True}})
    assert "cached_tokens" in whole["prompt_tokens_details"]
    assert '"prompt_tokens_details":{"cached_tokens":' in streamed.text
