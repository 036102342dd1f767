"""SageMaker's one endpoint answers as the one that its body is meant for."""

from __future__ import annotations

from typing import Any

import httpx
import pytest

CHAT: dict[str, Any] = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 2, "temperature": 0}
COMPLETION: dict[str, Any] = {"prompt": "hi", "max_tokens": 2, "temperature": 0}


@pytest.mark.parametrize(
    ("path", "body"), [("/v1/chat/completions", CHAT), ("/v1/completions", COMPLETION)], ids=["chat", "text"]
)
def test_the_body_says_whose_request_it_is(client: httpx.Client, path: str, body: dict[str, Any]) -> None:
    own, there = client.post("/invocations", json=body), client.post(path, json=body)
    assert own.status_code == 200
    assert own.json()["object"] == there.json()["object"]
    assert own.json()["choices"] == there.json()["choices"]
    assert own.headers["X-OneSeek-Adapter"] == there.headers["X-OneSeek-Adapter"]


def test_it_streams(client: httpx.Client) -> None:
    answer = client.post("/invocations", json=CHAT | {"stream": True})
    assert answer.headers["content-type"].startswith("text/event-stream")
    assert answer.text.endswith("data: [DONE]\n\n")


def test_embeddings_are_the_engines_to_refuse(client: httpx.Client) -> None:
    own = client.post("/invocations", json={"input": "hi"})
    there = client.post("/v1/embeddings", json={"input": "hi"})
    assert (own.status_code, own.json()) == (there.status_code, there.json())


@pytest.mark.parametrize("body", [CHAT | {"prompt": None}, COMPLETION | {"messages": None, "input": None}])
def test_null_is_absent(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/invocations", json=body)
    assert answer.status_code == 200, answer.text
    assert "choices" in answer.json()


@pytest.mark.parametrize(
    "body", [{}, {"model": "tiny"}, CHAT | COMPLETION, {"messages": None}, {"inputs": "hi"}]
)
def test_a_body_of_none_or_two_is_refused(client: httpx.Client, body: dict[str, Any]) -> None:
    answer = client.post("/invocations", json=body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_value")


def test_its_own_errors_name_its_fields(client: httpx.Client) -> None:
    answer = client.post("/invocations", json=CHAT | {"max_tokens": "many"})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "max_tokens")
    assert client.post("/invocations", content=b"{", headers=JSON).json()["error"]["code"] == "invalid_json"


def test_its_places_are_given_back(client: httpx.Client) -> None:
    for _ in range(3):
        client.post("/invocations", json=CHAT)
    assert 'oneseek_requests_running{adapter="base",base="tiny"} 0.0' in client.get("/metrics").text


JSON = {"Content-Type": "application/json"}
