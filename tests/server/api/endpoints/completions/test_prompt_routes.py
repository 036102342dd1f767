"""Several prompts of one completion: each is answered by whom its own language means."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from tests.server.http_server import BASE, EN, SV

SWEDISH, ENGLISH, EMPTY = "Vem är du, och vad kan du göra?", "Who are you, and what can you do?", "42"
BODY: dict[str, Any] = {"temperature": 0, "max_tokens": 6}


def ask(client: httpx.Client, prompts: list[str], **fields: object) -> httpx.Response:
    reply = client.post("/v1/completions", json=BODY | {"prompt": prompts} | fields)
    assert reply.status_code == 200, reply.text
    return reply


def texts(reply: httpx.Response) -> list[str]:
    return [choice["text"] for choice in reply.json()["choices"]]


def test_each_prompt_is_answered_by_its_own_language(client: httpx.Client) -> None:
    reply = ask(client, [SWEDISH, ENGLISH, EMPTY, SWEDISH], n=2)
    assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1, {EN}@v1.1, base, {SV}@v1.1"
    assert reply.headers["x-oneseek-language"] == "sv, en, none, sv"
    digests = reply.headers["x-oneseek-adapter-digest"].split(", ")
    assert digests[0] == digests[3] != digests[1]
    assert digests[2] == "none"
    assert [part.partition(";")[0] for part in reply.headers["x-oneseek-route"].split(", ")] == [
        *("language", "language", "default", "language"),
    ]
    alone = [texts(ask(client, [prompt], n=2)) for prompt in (SWEDISH, ENGLISH, EMPTY, SWEDISH)]
    assert texts(reply) == [text for pair in alone for text in pair]
    assert [choice["index"] for choice in reply.json()["choices"]] == list(range(8))
    assert reply.json()["usage"]["completion_tokens"] == 8 * 6


def test_the_same_in_a_stream(client: httpx.Client) -> None:
    whole = texts(ask(client, [SWEDISH, ENGLISH]))
    reply = ask(client, [SWEDISH, ENGLISH], stream=True)
    assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1, {EN}@v1.1"
    joined = ["", ""]
    for event in reply.text.split("\n\n")[:-2]:
        for choice in json.loads(event.removeprefix("data: "))["choices"]:
            joined[choice["index"]] += choice["text"]
    assert joined == whole


@pytest.mark.parametrize(("field", "value"), [("header", "sv"), ("model", SV)])
def test_a_name_answers_all_prompts(client: httpx.Client, field: str, value: str) -> None:
    headers = {"X-OneSeek-Adapter": value} if field == "header" else {}
    body = BODY | {"prompt": [SWEDISH, ENGLISH]} | ({"model": value} if field == "model" else {})
    reply = client.post("/v1/completions", json=body, headers=headers)
    assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"


def test_prompts_in_one_language_have_one_receipt(client: httpx.Client) -> None:
    reply = ask(client, [SWEDISH, "Hur mår du idag?"], receipt=True)
    assert reply.headers["x-oneseek-adapter"] == reply.json()["receipt"]["adapter"] == f"{SV}@v1.1"


def test_the_receipt_in_the_body_names_all(client: httpx.Client) -> None:
    body = ask(client, [SWEDISH, ENGLISH], receipt=True).json()
    assert body["receipt"]["adapter"] == body["model"] == f"{SV}@v1.1, {EN}@v1.1"
    assert body["receipt"]["base"] == BASE
    alone = ask(client, [SWEDISH]).json()
    assert body["system_fingerprint"] != alone["system_fingerprint"]


def test_a_system_prompt_decides_if_the_question_tells_nothing(client: httpx.Client) -> None:
    messages = [{"role": "system", "content": "Svara alltid på svenska."}, {"role": "user", "content": "👍"}]
    for path, body in (
        ("/v1/chat/completions", {"messages": messages, "max_tokens": 2}),
        ("/v1/responses", {"instructions": "Svara på svenska.", "input": "👍", "max_output_tokens": 2}),
    ):
        reply = client.post(path, json=body)
        assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"
        assert reply.headers["x-oneseek-route"].startswith("system;")
