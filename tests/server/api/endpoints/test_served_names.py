"""A base with two public names: every endpoint takes both, and shows the first."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from server.asgi.compose import Narrator, compose
from server.config.settings import Settings
from tests.server.http_server import Made, Serving, served

FIRST, SECOND = "shown", "org/Other-7B"
VOICE = "voice"
NAMES = [FIRST, SECOND, SECOND.upper(), "base"]
MESSAGES = [{"role": "user", "content": "Who are you?"}]
SHORT: dict[str, Any] = {"temperature": 0, "receipt": True}
QUESTIONS: dict[str, dict[str, Any]] = {
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/completions": {"prompt": "Who are you?", "max_tokens": 4},
    "/v1/responses": {"input": "Who are you?", "max_output_tokens": 16},
    "/invocations": {"messages": MESSAGES, "max_tokens": 4},
}


@pytest.fixture(scope="module")
def named(
    tiny_base: Path, tmp_path_factory: pytest.TempPathFactory, make_adapter: Callable[..., Path]
) -> Iterator[Serving]:
    root = tmp_path_factory.mktemp("named")
    settings = Settings(
        base_model=tiny_base,
        home=root / "home",
        port=0,
        served_model_name=(FIRST, SECOND),
        adapters=(f"{VOICE}={make_adapter('en', 1)}",),
        log_level="warning",
        threads=1,
        max_num_seqs=4,
        kv_cache_memory=4 * 1024 * 1024,
        drain_seconds=1,
    )
    app, (service,) = compose(settings, Narrator(StringIO()), {}, root)
    made = Made(app, service.runtime.engine, service.runtime.served)
    with served(made, settings, {}) as serving:
        yield serving


def events(text: str) -> list[dict[str, Any]]:
    lines = [line.removeprefix("data: ") for line in text.splitlines() if line.startswith("data: {")]
    return [json.loads(line) for line in lines]


@pytest.mark.parametrize("path", QUESTIONS)
def test_an_answer_shows_the_first_name(named: Serving, path: str) -> None:
    for name in NAMES:
        reply = named.http.post(path, json=QUESTIONS[path] | SHORT | {"model": name})
        assert reply.status_code == 200, reply.text
        assert reply.json()["model"] == FIRST
        assert reply.json()["receipt"]["base"] == FIRST
        told = reply.headers
        assert (told["x-oneseek-base"], told["x-oneseek-adapter"]) == (FIRST, "base")


@pytest.mark.parametrize("path", QUESTIONS)
def test_a_stream_shows_it_in_every_chunk(named: Serving, path: str) -> None:
    reply = named.http.post(path, json=QUESTIONS[path] | SHORT | {"model": SECOND, "stream": True})
    found = [event.get("response", event) for event in events(reply.text)]
    names = [event["model"] for event in found if "model" in event]
    assert names
    assert set(names) == {FIRST}
    assert reply.headers["x-oneseek-base"] == FIRST


def test_the_header_takes_both(named: Serving) -> None:
    for name in NAMES:
        reply = named.http.post(
            "/v1/chat/completions",
            json=QUESTIONS["/v1/chat/completions"],
            headers={"X-OneSeek-Adapter": name},
        )
        assert (reply.status_code, reply.json()["model"]) == (200, FIRST)


@pytest.mark.parametrize("name", [f"{FIRST}:{VOICE}", f"{SECOND}:{VOICE}", f"{SECOND}:base"])
def test_both_name_the_base_of_an_adapter(named: Serving, name: str) -> None:
    body = QUESTIONS["/v1/chat/completions"] | {"model": name}
    reply = named.http.post("/v1/chat/completions", json=body)
    assert reply.status_code == 200, reply.text
    assert reply.json()["model"] == (FIRST if name.endswith("base") else f"{VOICE}@v1")


def test_the_list_has_both(named: Serving) -> None:
    entries = {one["id"]: one for one in named.http.get("/v1/models").json()["data"]}
    assert {FIRST, SECOND} < entries.keys()
    assert (entries[SECOND]["root"], entries[VOICE]["parent"]) == (FIRST, FIRST)
    for name in (FIRST, SECOND):
        for path in (f"/v1/models/{name}", f"/v1/models/{quote(name, safe='')}"):
            assert named.http.get(path).json().get("id") == name, (path, named.http.get(path).text)


def test_several_voices_are_shown_by_it(named: Serving) -> None:
    asked = {"question": "Who are you?", "models": [SECOND, VOICE], "max_tokens": 4}
    voices = named.http.post("/api/oqt/multi-model-query", json=asked).json()["voices"]
    assert [(voice["asked"], voice["model"]) for voice in voices] == [
        ([SECOND], FIRST),
        ([VOICE], f"{VOICE}@v1"),
    ]
    assert {voice["receipt"]["base"] for voice in voices} == {FIRST}
    twice = named.http.post("/api/oqt/multi-model-query", json=asked | {"models": [FIRST, SECOND]})
    assert (twice.status_code, twice.json()["error"]["param"]) == (400, "models[1]")


def test_other_endpoints_take_and_show_it(named: Serving) -> None:
    http = named.http
    assert http.post("/tokenize", json={"model": SECOND, "prompt": "Hej"}).status_code == 200
    assert http.post("/detokenize", json={"model": SECOND, "tokens": [5]}).status_code == 200
    reply = http.post("/v1/embeddings", json={"model": SECOND, "input": "Hej"})
    assert (reply.status_code, reply.json()["error"]["code"]) == (400, "unsupported_value")
    assert [base["name"] for base in http.get("/health").json()["bases"]] == [FIRST]
    assert http.post("/inference/oneseek", json={"text": "Hej"}).headers["x-oneseek-base"] == FIRST
    assert f'model_name="{FIRST}"' in http.get("/metrics").text
    assert SECOND not in http.get("/metrics").text
