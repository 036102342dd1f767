"""Open WebUI's requests, sent again: its server does not fit beside the other clients.

It adds these headers and fields to each request, and takes its own `metadata` out before it sends one.
"""

from __future__ import annotations

import json
from collections.abc import Generator
from typing import Any

import httpx
import pytest

from .conftest import EN, Served

HEADERS = {
    "HTTP-Referer": "https://openwebui.com/",
    "X-Title": "Open WebUI",
    "X-OpenWebUI-User-Name": "Anna%20%C3%96",
    "X-OpenWebUI-User-Id": "6f1c2a52-0000-4000-8000-000000000000",
    "X-OpenWebUI-User-Email": "anna@example.org",
    "X-OpenWebUI-User-Role": "admin",
    "X-OpenWebUI-Chat-Id": "9d0c7b11-0000-4000-8000-000000000000",
}
HISTORY = "<chat_history>\nUSER: Who are you?\nASSISTANT: I am OneSeek.\n</chat_history>"
TASKS = {
    "title": '### Task:\nGenerate a title. JSON: { "title": "your title" }\n' + HISTORY,
    "tags": '### Task:\nGenerate 1-3 tags. JSON: { "tags": ["tag1"] }\n' + HISTORY,
    "follow-ups": '### Task:\nSuggest follow-ups. JSON: { "follow_ups": ["Question 1?"] }\n' + HISTORY,
}


@pytest.fixture
def webui(server: Served) -> Generator[httpx.Client]:
    with server.http() as client:
        client.headers.update(HEADERS)
        yield client


def test_it_lists_models(webui: httpx.Client) -> None:
    listed = webui.get("/v1/models").json()
    assert EN in {model["id"] for model in listed["data"]}
    assert all(model["object"] == "model" for model in listed["data"])


@pytest.mark.parametrize(
    "extra",
    [
        {},
        {"stream_options": {"include_usage": True}},
        {"temperature": 0.7, "top_p": 0.9, "frequency_penalty": 0.1, "presence_penalty": 0, "seed": 42,
         "stop": ["###"], "max_tokens": 30, "logit_bias": {"10": 5}},
        {"reasoning_effort": "medium", "min_p": 0.05, "top_k": 40},
    ],
)  # fmt: skip
def test_it_streams_a_chat(webui: httpx.Client, extra: dict[str, Any]) -> None:
    messages = [
        {"role": "system", "content": "User Context:\n\nBe brief."},
        {"role": "user", "content": [{"type": "text", "text": "Who are you?"}]},
        {"role": "assistant", "content": "I am OneSeek."},
        {"role": "user", "content": "And what do you do?"},
    ]
    body = {"stream": True, "model": EN, "messages": messages, "max_tokens": 20} | extra
    with webui.stream("POST", "/v1/chat/completions", json=body) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
        assert (answer.status_code, answer.headers["Content-Type"]) == (
            200,
            "text/event-stream; charset=utf-8",
        )
    chunks = [json.loads(line[6:]) for line in lines[:-1]]
    assert lines[-1] == "data: [DONE]"
    assert any(choice["delta"].get("content") for chunk in chunks for choice in chunk["choices"])
    if "stream_options" in extra:
        assert chunks[-1]["usage"]["completion_tokens"] > 0


@pytest.mark.parametrize("task", TASKS)
def test_it_gives_tasks(webui: httpx.Client, task: str) -> None:
    messages = [{"role": "user", "content": TASKS[task]}]
    body = {"model": EN, "messages": messages, "stream": False, "max_completion_tokens": 50}
    answer = webui.post("/v1/chat/completions", json=body)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["role"] == "assistant"


def test_its_errors_have_a_detail_to_show(webui: httpx.Client) -> None:
    body = {"model": "gone", "messages": [{"role": "user", "content": "Who?"}], "stream": True}
    answer = webui.post("/v1/chat/completions", json=body)
    assert (answer.status_code, bool(answer.json()["error"]["message"])) == (404, True)
