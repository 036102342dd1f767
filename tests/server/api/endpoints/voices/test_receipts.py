"""The receipt in the body: the same object on every endpoint, streamed or not, if it was asked for."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest
from openai import OpenAI

from tests.server.http_server import BASE, BASE_DIGEST, EN, SV, Serving

HEADER = {"X-OneSeek-Receipt": "body"}
FIELDS = [
    "request_id",
    "base",
    "base_digest",
    "adapter",
    "version",
    "digest",
    "route",
    "queue_seconds",
    "prefill_seconds",
    "first_token_seconds",
    "tokens_per_second",
]
FRAGA = "Vem är du?"
MESSAGES = [{"role": "user", "content": FRAGA}]
SHORT: dict[str, Any] = {"max_tokens": 6, "temperature": 0}
BODIES: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, **SHORT, "ignore_eos": True},
    "/v1/completions": {"prompt": FRAGA, **SHORT, "ignore_eos": True},
    "/v1/responses": {"input": FRAGA, "max_output_tokens": 6, "temperature": 0, "ignore_eos": True},
    "/inference/oneseek": {"text": FRAGA, "max_tokens": 6, "temperature": 0},
    "/inference/mistral": {"text": FRAGA, "max_tokens": 6, "temperature": 0},
    "/inference/llama": {"text": FRAGA, "max_tokens": 6, "temperature": 0},
}
STREAMED = [path for path in BODIES if path.startswith("/v1")]


def chunks(reply: httpx.Response) -> list[dict[str, Any]]:
    assert reply.status_code == 200, reply.text
    lines = [line.removeprefix("data: ") for line in reply.text.splitlines() if line.startswith("data: ")]
    return [json.loads(line) for line in lines if line != "[DONE]"]


def check(receipt: dict[str, Any], reply: httpx.Response, serving: Serving) -> None:
    """The receipt says what the headers say, and more."""
    assert list(receipt) == FIELDS, "its order is stable"
    assert receipt["request_id"] == reply.headers["x-request-id"]
    assert (receipt["base"], receipt["base_digest"]) == (BASE, BASE_DIGEST)
    assert receipt["adapter"] == reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"
    assert receipt["version"] == "v1.1"
    assert receipt["digest"] == reply.headers["x-oneseek-adapter-digest"] == serving.adapters["sv"].digest
    route = receipt["route"]
    assert list(route) == ["language", "confidence", "reason", "runners_up"]
    assert route["language"] == reply.headers["x-oneseek-language"] == "sv"
    assert f"{route['reason']};confidence={route['confidence']:.2f}" == reply.headers["x-oneseek-route"]
    others = [(other["language"], other["confidence"]) for other in route["runners_up"]]
    assert len(others) <= 3
    assert all(value >= 0.001 for _, value in others)
    assert "sv" not in dict(others)
    assert [value for _, value in others] == sorted((value for _, value in others), reverse=True)
    assert receipt["queue_seconds"] >= 0
    assert receipt["prefill_seconds"] > 0
    both = receipt["queue_seconds"] + receipt["prefill_seconds"]
    assert receipt["first_token_seconds"] >= round(both - 1e-3, 4)
    for name in FIELDS[-4:-1]:
        assert receipt[name] == round(receipt[name], 4)


@pytest.mark.parametrize("path", BODIES)
@pytest.mark.parametrize("way", ["header", "field"])
def test_every_endpoint_has_the_same_receipt(
    client: httpx.Client, serving: Serving, path: str, way: str
) -> None:
    body = BODIES[path] | ({"receipt": True} if way == "field" else {})
    reply = client.post(path, json=body, headers=HEADER if way == "header" else {})
    assert reply.status_code == 200, reply.text
    check(reply.json()["receipt"], reply, serving)
    if path.startswith("/v1"):
        assert reply.json()["receipt"]["tokens_per_second"] > 0


@pytest.mark.parametrize("path", BODIES)
def test_without_asking_there_is_none(client: httpx.Client, path: str) -> None:
    assert "receipt" not in client.post(path, json=BODIES[path]).json()
    assert "receipt" not in client.post(path, json=BODIES[path] | {"receipt": False}).json()


@pytest.mark.parametrize("path", STREAMED)
@pytest.mark.parametrize("way", ["header", "field"])
def test_a_stream_has_it_in_its_last_chunk(
    client: httpx.Client, serving: Serving, path: str, way: str
) -> None:
    body = BODIES[path] | {"stream": True} | ({"receipt": True} if way == "field" else {})
    reply = client.post(path, json=body, headers=HEADER if way == "header" else {})
    *before, last = chunks(reply)
    assert not [chunk for chunk in before if "receipt" in chunk or "receipt" in chunk.get("response", {})]
    if path == "/v1/responses":
        assert last["type"] == "response.incomplete"
        last = last["response"]
    else:
        assert last["choices"][0]["finish_reason"] == "length", "no chunk that a client does not expect"
    check(last["receipt"], reply, serving)


@pytest.mark.parametrize("path", STREAMED[:2])
def test_with_usage_it_is_in_the_usage_chunk(client: httpx.Client, serving: Serving, path: str) -> None:
    options = {"stream": True, "stream_options": {"include_usage": True}, "n": 2}
    reply = client.post(path, json=BODIES[path] | options, headers=HEADER)
    *before, last = chunks(reply)
    assert not [chunk for chunk in before if "receipt" in chunk]
    assert last["choices"] == []
    assert last["usage"]["completion_tokens"] == 12
    check(last["receipt"], reply, serving)


@pytest.mark.parametrize("path", STREAMED[:2])
def test_several_choices_share_one(client: httpx.Client, serving: Serving, path: str) -> None:
    whole = client.post(path, json=BODIES[path] | {"n": 3}, headers=HEADER)
    check(whole.json()["receipt"], whole, serving)
    streamed = client.post(path, json=BODIES[path] | {"n": 3, "stream": True}, headers=HEADER)
    found = chunks(streamed)
    ends = [chunk for chunk in found if chunk["choices"][0]["finish_reason"]]
    assert [("receipt" in chunk) for chunk in ends] == [False, False, True]
    assert found[-1] is ends[-1]
    check(ends[-1]["receipt"], streamed, serving)


def test_several_prompts_share_one(client: httpx.Client, serving: Serving) -> None:
    body = BODIES["/v1/completions"] | {"prompt": [FRAGA, "Jag är en liten modell för prov."]}
    reply = client.post("/v1/completions", json=body, headers=HEADER)
    check(reply.json()["receipt"], reply, serving)


def test_the_base_and_a_blend(client: httpx.Client, serving: Serving) -> None:
    def receipt(name: str) -> dict[str, Any]:
        body = BODIES["/v1/chat/completions"] | {"model": name}
        return client.post("/v1/chat/completions", json=body, headers=HEADER).json()["receipt"]

    base = receipt(BASE)
    assert (base["adapter"], base["version"], base["digest"]) == ("base", None, None)
    assert base["route"]["reason"] == "model"
    if serving.engine.info.blends:
        blend = receipt("sv=0.7,en=0.3")
        assert blend["adapter"] == f"{SV}@v1.1=0.7,{EN}@v1.1=0.3"
        assert blend["version"] is None
        assert blend["digest"] == ",".join(serving.adapters[name].digest for name in ("sv", "en"))


def test_an_undecided_language_is_null_and_the_likeliest_runs_up(client: httpx.Client) -> None:
    body = BODIES["/v1/chat/completions"] | {"messages": [{"role": "user", "content": "42"}]}
    reply = client.post("/v1/chat/completions", json=body, headers=HEADER)
    route = reply.json()["receipt"]["route"]
    assert route["language"] is None
    assert route["runners_up"][0]["confidence"] == route["confidence"]


def test_an_answer_of_one_token_has_no_rate(client: httpx.Client) -> None:
    body = BODIES["/v1/chat/completions"] | {"max_tokens": 1}
    receipt = client.post("/v1/chat/completions", json=body, headers=HEADER).json()["receipt"]
    assert receipt["first_token_seconds"] > 0
    assert receipt["tokens_per_second"] is None


@pytest.mark.parametrize("path", [*BODIES, "/v1/embeddings"])
@pytest.mark.parametrize("value", ["other", "", "true", "body,body", "header"])
def test_another_value_is_refused_and_names_the_header(client: httpx.Client, path: str, value: str) -> None:
    reply = client.post(path, json=BODIES.get(path, {"input": FRAGA}), headers={"X-OneSeek-Receipt": value})
    error = reply.json()["error"]
    assert (reply.status_code, error["param"], error["code"]) == (400, "X-OneSeek-Receipt", "invalid_value")
    assert "'body'" in error["message"]


@pytest.mark.parametrize("value", ["yes", 1, "body", {}])
def test_the_field_is_true_or_false(client: httpx.Client, value: object) -> None:
    for path, body in BODIES.items():
        reply = client.post(path, json=body | {"receipt": value})
        error = reply.json()["error"]
        assert (reply.status_code, error["param"]) == (400, "receipt"), path


def test_an_error_has_none(client: httpx.Client) -> None:
    body = BODIES["/v1/chat/completions"] | {"model": "nobody"}
    reply = client.post("/v1/chat/completions", json=body, headers=HEADER)
    assert reply.status_code == 404
    assert list(reply.json()) == ["error"]


@pytest.mark.parametrize("usage", [False, True])
def test_the_official_client_reads_on(serving: Serving, usage: bool) -> None:
    with OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0) as ai:
        stream = ai.chat.completions.create(
            model="oneseek",
            messages=[{"role": "user", "content": FRAGA}],
            max_tokens=4,
            stream=True,
            extra_headers=HEADER,
            stream_options={"include_usage": usage},
        )
        found = list(stream)
        assert all(chunk.choices for chunk in found[: -1 if usage else None])
        assert (found[-1].model_extra or {})["receipt"]["adapter"] == f"{SV}@v1.1"
        whole = ai.responses.create(model="oneseek", input=FRAGA, max_output_tokens=4, extra_headers=HEADER)
        assert (whole.model_extra or {})["receipt"]["adapter"] == f"{SV}@v1.1"
