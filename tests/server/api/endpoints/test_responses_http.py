"""`/v1/responses` over real HTTP: receipts, errors before and after the first delta, clients that leave."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import AsyncGenerator, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as examples
from hypothesis import strategies as st
from openai import OpenAI

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import LanguageRow, RoutingSettings
from server.api.fields.responses import response_table
from server.config.settings import Settings
from server.engines.demand_places import KnownAdapters
from server.engines.shared.places import Places
from server.errors import EngineDeadError, UnsupportedRequestError
from server.metrics.engine_state import EngineInfo, EngineState
from server.metrics.metrics import Metrics
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer
from tests.server.http_server import (
    BASE,
    BASE_DIGEST,
    CONTEXT,
    EN,
    SV,
    Made,
    Serving,
    eventually,
    one_base_app,
    served,
)

PATH = "/v1/responses"
ASK: dict[str, Any] = {"input": "Vem är du?", "max_output_tokens": 8, "temperature": 0}
LONG: dict[str, Any] = {"model": SV, "input": "Vem är du?", "max_output_tokens": 200, "ignore_eos": True}


def events(text: str) -> list[dict[str, Any]]:
    """The events of a whole stream; each says its kind in both of its lines."""
    *blocks, end = text.split("\n\n")
    assert end == ""
    found: list[dict[str, Any]] = []
    for block in blocks:
        kind, data = block.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert kind == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def running(serving: Serving) -> float:
    state = serving.engine.state()
    return sum(state.running.values()) + sum(state.waiting.values())


@pytest.mark.parametrize(
    ("header", "model", "adapter", "reason"),
    [
        (None, None, f"{SV}@v1.1", "language"),
        (None, EN, f"{EN}@v1.1", "model"),
        ("base", EN, "base", "header"),
        ("sv=0.7,en=0.3", None, f"{SV}@v1.1=0.7,{EN}@v1.1=0.3", "header"),
    ],
)
def test_every_answer_has_its_receipt(
    client: httpx.Client,
    serving: Serving,
    header: str | None,
    model: str | None,
    adapter: str,
    reason: str,
) -> None:
    if "=" in (header or "") and not serving.engine.info.blends:
        pytest.skip("this engine refuses blends, which the contract checks")
    headers = {"X-OneSeek-Adapter": header} if header else {}
    body = ASK | ({"model": model} if model else {})
    whole = client.post(PATH, json=body, headers=headers)
    streamed = client.post(PATH, json=body | {"stream": True}, headers=headers)
    for reply in (whole, streamed):
        assert reply.status_code == 200
        assert reply.headers["x-oneseek-adapter"] == adapter
        assert reply.headers["x-oneseek-route"].startswith(reason + ";")
    answers = [whole.json(), events(streamed.text)[0]["response"], events(streamed.text)[-1]["response"]]
    assert {answer["model"] for answer in answers} == {BASE if adapter == "base" else adapter}
    assert len({answer["system_fingerprint"] for answer in answers}) == 1
    assert answers[0]["output"][0]["content"] == answers[2]["output"][0]["content"]


def test_requests_are_counted(serving: Serving) -> None:
    labels = f'adapter="{SV}",endpoint="{PATH}",language="sv",status="200",version="v1.1"'
    tokens = f'oneseek_tokens_total{{adapter="{SV}",kind="completion",version="v1.1"}}'
    before = serving.counts()
    serving.http.post(PATH, json=ASK | {"ignore_eos": True})
    after = serving.counts()
    name = f"oneseek_requests_total{{{labels}}}"
    assert after[name] - before.get(name, 0.0) == 1
    assert after[tokens] - before.get(tokens, 0.0) == 8


def test_what_is_echoed(client: httpx.Client) -> None:
    told = {
        "instructions": "Var kort.",
        "metadata": {"a": "b"},
        "user": "eva",
        "safety_identifier": "s",
        "prompt_cache_key": "k",
        "max_output_tokens": 2,
        "max_tool_calls": 3,
        "parallel_tool_calls": False,
        "temperature": 0.25,
        "top_p": 0.5,
    }
    answer = client.post(PATH, json={"input": "Vem är du?"} | told).json()
    assert {name: answer[name] for name in told} == told
    fixed = client.post(PATH, json=ASK | {"store": True, "service_tier": "flex"}).json()
    assert (fixed["store"], fixed["service_tier"], fixed["background"]) == (False, "default", False)
    assert (fixed["tools"], fixed["truncation"], fixed["previous_response_id"]) == ([], "disabled", None)
    assert (fixed["metadata"], fixed["text"]["format"]) == ({}, {"type": "text"})


def test_instructions_are_the_system_message(client: httpx.Client) -> None:
    chat = client.post(
        "/v1/chat/completions",
        json={
            "model": EN,
            "messages": [{"role": "system", "content": "Brief."}, {"role": "user", "content": "Who?"}],
            "max_tokens": 8,
            "temperature": 0,
        },
    ).json()
    body = {"model": EN, "instructions": "Brief.", "input": "Who?", "max_output_tokens": 8, "temperature": 0}
    answer = client.post(PATH, json=body).json()
    assert answer["output"][0]["content"][0]["text"] == chat["choices"][0]["message"]["content"]
    assert answer["usage"]["input_tokens"] == chat["usage"]["prompt_tokens"]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize(
    ("fields", "status", "param", "code"),
    [
        ({"input": None}, 400, "input", "missing_required_parameter"),
        ({"model": "gpt-6"}, 404, "model", "model_not_found"),
        ({"max_output_tokens": 10_000}, 400, "max_output_tokens", "context_length_exceeded"),
        ({"input": "hej " * 300}, 400, "input", "context_length_exceeded"),
        ({"input": "hej " * 900_000}, 400, "input", "context_length_exceeded"),
        ({"min_tokens": 9}, 400, "min_tokens", "invalid_value"),
        ({"text": {"format": {"type": "grammar"}}}, 400, "text.format.type", "invalid_value"),
        (
            {"text": {"format": {"type": "json_schema", "name": "x", "schema": {"$ref": "file:///x"}}}},
            400,
            "text.format.schema",
            "invalid_value",
        ),
        ({"previous_response_id": "resp_1"}, 400, "previous_response_id", "unsupported_parameter"),
    ],
)
def test_errors_before_the_first_delta_have_their_own_status(
    client: httpx.Client, stream: bool, fields: dict[str, Any], status: int, param: str, code: str
) -> None:
    reply = client.post(PATH, json=ASK | {"stream": stream} | fields)
    detail = reply.json()["error"]
    assert (reply.status_code, detail["param"], detail["code"]) == (status, param, code)


@pytest.mark.parametrize("method", ["GET", "DELETE"])
def test_nothing_is_stored(client: httpx.Client, method: str) -> None:
    made = client.post(PATH, json=ASK | {"store": True}).json()["id"]
    reply = client.request(method, f"{PATH}/{made}")
    assert (reply.status_code, reply.json()["error"]["code"]) == (404, "not_found")
    assert client.get(f"{PATH}/{made}/input_items").status_code == 404


class OneWord:
    """An engine that says one word of every answer, and no more until it is closed."""

    def __init__(self, adapters: frozenset[str]) -> None:
        self.info = EngineInfo(
            name="word", base_digest=BASE_DIGEST, context=CONTEXT, vocabulary=512, blends=True, max_adapters=8
        )
        self.residents = KnownAdapters(adapters)
        self.places = Places(at_once=8, queue=8, withdraw=lambda stream, error: None)
        self.closed = asyncio.Event()

    async def start(self) -> None:
        pass

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        yield Delta("Hej", (70,))
        await self.closed.wait()
        raise EngineDeadError("the engine has ended")

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        raise UnsupportedRequestError("no embeddings", "model")

    async def load(self, adapter: Adapter) -> None:
        pass

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        pass

    def state(self) -> EngineState:
        return EngineState(alive=not self.closed.is_set(), progress=0.0)

    def fail(self, reason: str) -> None: ...

    async def close(self) -> None:
        self.closed.set()


@contextmanager
def one_word(base: Path, voices: dict[str, Adapter], limits: Settings) -> Generator[Serving]:
    engine = OneWord(frozenset(adapter.digest for adapter in voices.values()))
    routing = RoutingSettings(languages=(LanguageRow("sv", SV),))
    adapters = ServedAdapters(voices.values(), base_digest=BASE_DIGEST, base_name=BASE)
    router = Router(routing, ProfileDetector(routing))
    app = one_base_app(limits, engine, adapters, router, Tokenizer.load(base), BASE, Metrics())
    with served(Made(app, engine, adapters), limits, voices) as serving:
        yield serving


def broken(text: str) -> tuple[str, dict[str, Any]]:
    """The code of the error that ended a stream after its first word, and the response that failed."""
    *before, error, failed = events(text)
    assert before[-1]["delta"] == "Hej"
    assert (error["type"], failed["type"]) == ("error", "response.failed")
    assert failed["response"]["error"] == {"code": "server_error", "message": error["message"]}
    return error["code"], failed["response"]


def test_an_engine_that_dies_in_mid_stream_says_so(tiny_base: Path, voices: dict[str, Adapter]) -> None:
    limits = Settings(port=0, log_level="critical")
    with (
        one_word(tiny_base, voices, limits) as serving,
        serving.http.stream("POST", PATH, json=LONG | {"stream": True}) as reply,
    ):
        assert reply.status_code == 200
        serving.close_engine()
        code, response = broken(reply.read().decode())
        assert code == "engine_dead"
        assert (response["status"], response["output"], response["usage"]) == ("failed", [], None)


def test_time_that_runs_out(tiny_base: Path, voices: dict[str, Adapter]) -> None:
    limits = Settings(port=0, log_level="critical", request_timeout=0.2, drain_seconds=1)
    with one_word(tiny_base, voices, limits) as serving:
        reply = serving.http.post(PATH, json=LONG)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        streamed = serving.http.post(PATH, json=LONG | {"stream": True})
        assert streamed.status_code == 200
        assert broken(streamed.text)[0] == "timeout"
        counts = serving.counts()
        assert any(PATH in name and 'status="504"' in name for name in counts)
        assert not any(PATH in name and 'status="200"' in name for name in counts)


def test_the_official_client_is_told_of_an_error_in_mid_stream(
    tiny_base: Path, voices: dict[str, Adapter]
) -> None:
    limits = Settings(port=0, log_level="critical", request_timeout=0.2, drain_seconds=1)
    with (
        one_word(tiny_base, voices, limits) as serving,
        OpenAI(base_url=f"{serving.url}/v1", api_key="none", max_retries=0) as ai,
        ai.responses.stream(model=SV, input="Hej") as stream,
    ):
        *_, error, failed = list(stream)
        assert error.type == "error"
        assert (error.code, error.param) == ("timeout", None)
        assert failed.type == "response.failed"
        assert failed.response.error is not None
        assert failed.response.error.message == error.message


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place_at_once(serving: Serving, stream: bool) -> None:
    name = 'oneseek_cancelled_total{reason="disconnect"}'
    before = serving.counts().get(name, 0.0)
    body = json.dumps(LONG | {"stream": stream, "max_output_tokens": 240}).encode()
    head = f"POST {PATH} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    host, port = serving.url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port)), timeout=30) as connection:
        connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        if stream:
            connection.recv(1)
        else:
            assert eventually(lambda: running(serving) > 0)
    assert eventually(lambda: running(serving) == 0)
    assert eventually(lambda: serving.counts().get(name, 0.0) > before)


Json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)


@examples(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(fields=st.dictionaries(st.sampled_from(sorted(response_table())), Json, max_size=4))
def test_no_body_makes_the_server_fail(client: httpx.Client, fields: dict[str, Any]) -> None:
    for body in (fields, {"input": "Hi", "max_output_tokens": 1} | fields):
        reply = client.post(PATH, json=body)
        assert reply.status_code in (200, 400, 404), reply.text
        if reply.status_code != 200:
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}
