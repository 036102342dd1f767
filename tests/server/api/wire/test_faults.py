"""Clients that leave, dawdle or attack, and an engine that is full or dead."""

from __future__ import annotations

import asyncio
import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.lora.manifest import Adapter
from server.api.fields.generation import ChatFields, CompletionFields, known
from server.api.fields.refusals import HINTS, REFUSED
from server.asgi.http.limits import MAX_HEAD_BYTES
from server.asgi.http.protocol import BoundedProtocol
from server.config.settings import Settings
from tests.server.http_server import EN, SV, Serving, eventually, lengths_read, make_app, served

pytestmark = pytest.mark.anyio

CHAT = "/v1/chat/completions"
LONG: dict[str, Any] = {
    "model": SV,
    "messages": [{"role": "user", "content": "Vem är du?"}],
    "max_tokens": 200,
    "ignore_eos": True,
}


def running(serving: Serving) -> float:
    counts = serving.counts()
    return sum(
        value
        for name, value in counts.items()
        if name.startswith(("oneseek_requests_running", "oneseek_requests_waiting"))
    )


def connect(serving: Serving) -> socket.socket:
    host, port = serving.url.removeprefix("http://").split(":")
    connection = socket.create_connection((host, int(port)), timeout=30)
    connection.settimeout(30)
    return connection


def post(body: bytes, path: str = CHAT, *headers: str) -> bytes:
    lines = [f"POST {path} HTTP/1.1", "Host: localhost", "Content-Type: application/json", *headers]
    return "\r\n".join([*lines, f"Content-Length: {len(body)}", "", ""]).encode("latin-1") + body


@pytest.fixture(scope="module")
def slow(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    """A server with one place and a queue of two, so that what holds a place is seen."""
    settings = Settings(port=0, max_num_seqs=1, max_queue=2, log_level="warning", drain_seconds=1)
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        yield serving


@pytest.mark.parametrize("stream", [False, True])
def test_a_client_that_leaves_frees_its_place_at_once(serving: Serving, stream: bool) -> None:
    before = serving.counts().get('oneseek_cancelled_total{reason="disconnect"}', 0.0)
    for _ in range(3):
        with connect(serving) as connection:
            body = LONG | {"n": 16, "stream": stream, "max_tokens": 240}
            connection.sendall(post(json.dumps(body).encode()))
            if stream:
                connection.recv(1)
            else:
                assert eventually(lambda: running(serving) > 0)
    assert eventually(lambda: running(serving) == 0)
    counts = serving.counts()
    assert counts['oneseek_cancelled_total{reason="disconnect"}'] > before
    labels = f'adapter="{SV}",endpoint="{CHAT}",language="sv",status="499",version="v1.1"'
    assert counts[f"oneseek_requests_total{{{labels}}}"] > 0


def cancellations(serving: Serving) -> dict[str, float]:
    return {name: count for name, count in serving.counts().items() if name.startswith("oneseek_cancelled")}


def test_a_full_queue_says_when_to_come_back(slow: Serving) -> None:
    async def ask(client: httpx.AsyncClient) -> httpx.Response:
        return await client.post(slow.url + CHAT, json=LONG)

    async def all_at_once() -> list[httpx.Response]:
        async with httpx.AsyncClient(timeout=60) as client:
            return await asyncio.gather(*(ask(client) for _ in range(24)))

    given_up = cancellations(slow)
    replies = asyncio.run(all_at_once())
    refused = [reply for reply in replies if reply.status_code == 429]
    assert {reply.status_code for reply in replies} == {200, 429}
    for reply in refused:
        assert int(reply.headers["retry-after"]) >= 1
        assert reply.headers["x-oneseek-adapter"] == f"{SV}@v1.1"
        assert reply.json()["error"]["code"] == "queue_full"
    assert slow.counts()['oneseek_rejected_total{reason="queue_full"}'] == len(refused)
    assert cancellations(slow) == given_up, "what the engine never took was not given up"
    assert slow.http.post(CHAT, json=LONG).status_code == 200


def test_choices_beyond_the_queue_leave_nothing_behind(slow: Serving) -> None:
    assert slow.http.post(CHAT, json=LONG | {"n": 8}).status_code == 429
    assert eventually(lambda: running(slow) == 0)


def test_time_that_runs_out(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> None:
    limits = Settings(port=0, max_num_seqs=1, log_level="critical", request_timeout=0.4)
    with served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving:
        body = LONG | {"n": 16, "max_tokens": 240}
        reply = serving.http.post(CHAT, json=body, timeout=60)
        assert (reply.status_code, reply.json()["error"]["code"]) == (504, "timeout")
        streamed = serving.http.post(CHAT, json=body | {"stream": True}, timeout=60)
        *_, last, done, _ = streamed.text.split("\n\n")
        assert done == "data: [DONE]"
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"
        assert eventually(lambda: running(serving) == 0)
        assert serving.counts()['oneseek_cancelled_total{reason="timeout"}'] > 0
        counted = [name for name in serving.counts() if name.startswith("oneseek_requests_total")]
        assert any('status="504"' in name for name in counted)
        assert not any('status="200"' in name and CHAT in name for name in counted)


def test_a_dead_engine_is_not_ready(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> None:
    limits = Settings(port=0, max_num_seqs=2, log_level="critical")
    with served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving:
        serving.close_engine()
        for path in ("/ready", "/health", "/version"):
            reply = serving.http.get(path)
            assert (reply.status_code, reply.headers["retry-after"]) == (503, "5")
        assert serving.http.get("/live").status_code == 200
        reply = serving.http.post(CHAT, json=LONG)
        assert (reply.status_code, reply.json()["error"]["code"]) == (503, "engine_dead")
        assert "retry-after" in reply.headers


def test_an_engine_that_dies_in_mid_stream_says_so(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path
) -> None:
    limits = Settings(port=0, max_num_seqs=2, log_level="critical")
    with (
        served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving,
        serving.http.stream("POST", CHAT, json=LONG | {"stream": True, "n": 8}) as reply,
    ):
        assert reply.status_code == 200
        serving.close_engine()
        *_, last, done = [line for line in reply.iter_lines() if line]
        assert json.loads(last.removeprefix("data: "))["error"]["code"] == "engine_dead"
        assert done == "data: [DONE]"


def test_running_answers_end_before_the_server_does(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path
) -> None:
    limits = Settings(port=0, max_num_seqs=2, log_level="warning", drain_seconds=20)
    with (
        served(make_app(tiny_base, voices, graphs, limits), limits, voices) as serving,
        serving.http.stream("POST", CHAT, json=LONG | {"stream": True}) as reply,
    ):
        lines = reply.iter_lines()
        next(lines)
        serving.server.should_exit = True
        assert [line for line in lines if line][-1] == "data: [DONE]"
    with pytest.raises(httpx.ConnectError):
        httpx.get(serving.url + "/live")


def test_a_chunked_body_over_the_limit_is_cut_off(serving: Serving) -> None:
    sent = 0

    def chunks() -> Iterator[bytes]:
        nonlocal sent
        yield b'{"messages":[{"role":"user","content":"'
        for _ in range(1000):
            sent += 1
            yield b"x" * 65536

    try:
        reply = serving.http.post(CHAT, content=chunks(), headers={"Content-Type": "application/json"})
    except (httpx.WriteError, httpx.ReadError):
        pass  # the server has closed while we were still sending
    else:
        assert (reply.status_code, reply.json()["error"]["code"]) == (413, "body_too_large")
    assert sent < 900
    assert serving.http.get("/live").status_code == 200


def test_an_announced_body_over_the_limit_is_not_read(serving: Serving) -> None:
    with connect(serving) as connection:
        head = f"POST {CHAT} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        connection.sendall(f"{head}Content-Length: 5000000\r\n\r\n".encode())
        reply = connection.recv(65536)
    assert reply.startswith(b"HTTP/1.1 413 ")
    assert b"body_too_large" in reply or b"connection: close" in reply.lower()


def test_a_client_that_dawdles_over_its_headers_is_dropped(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "header_seconds", 0.2)
    for beginning in (b"", b"POST /v1/chat", b"GET /live HTTP/1.1\r\nHost: localhost\r\nX-A"):
        with connect(serving) as connection:
            started = time.monotonic()
            connection.sendall(beginning)
            assert connection.recv(100) == b""
            assert time.monotonic() - started < 5


def test_a_client_that_dawdles_over_its_second_headers_is_dropped(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "header_seconds", 0.2)

    def is_live() -> bool:
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n")
        received = b""
        while not received.endswith(b"}"):
            piece = connection.recv(1000)
            if not piece:
                return False
            received += piece
        return received.startswith(b"HTTP/1.1 200")

    with connect(serving) as connection:
        assert is_live()
        time.sleep(0.4)
        assert is_live(), "between requests it may wait"
        connection.sendall(b"GET /live HTTP/1.1\r\nHo")
        assert connection.recv(100) == b""


def test_slow_bodies_and_long_streams_are_not_dropped_with_slow_heads(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(BoundedProtocol, "header_seconds", 0.1)
    whole = post(json.dumps(LONG | {"max_tokens": 2}).encode())
    with connect(serving) as connection:
        connection.sendall(whole[:-30])
        time.sleep(0.4)
        connection.sendall(whole[-30:])
        assert connection.recv(1000).startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        (CHAT, {"messages": [{"role": "user", "content": "hej " * 900_000}]}, "messages"),
        ("/v1/completions", {"prompt": "hej " * 900_000}, "prompt"),
        ("/v1/completions", {"prompt": [5] * 300_000}, "prompt"),
        ("/tokenize", {"prompt": "hej " * 900_000}, "prompt"),
        ("/inference/oneseek", {"text": "hej " * 900_000}, "text"),
    ],
)
def test_texts_that_cannot_fit_are_refused_unread(
    serving: Serving, monkeypatch: pytest.MonkeyPatch, path: str, body: dict[str, Any], param: str
) -> None:
    read = lengths_read(monkeypatch)
    reply = serving.http.post(path, json=body)
    assert all(length < 1000 for length in read)
    detail = reply.json()["error"]
    assert (reply.status_code, detail["code"], detail["param"]) == (400, "context_length_exceeded", param)


def test_long_texts_that_may_fit_are_tokenised_whole(client: httpx.Client) -> None:
    text = "Vem är du? Jag är en liten modell för prov. " * 150
    tokens = client.post("/tokenize", json={"prompt": text}).json()["tokens"]
    assert client.post("/detokenize", json={"tokens": tokens}).json() == {"prompt": text}


def test_many_headers_are_refused(serving: Serving) -> None:
    reply = serving.http.get("/live", headers={f"X-{n}": "x" for n in range(200)})
    assert (reply.status_code, reply.json()["error"]["code"]) == (431, "headers_too_large")
    reply = serving.http.get("/live", headers={"X-Big": "x" * 40_000})
    assert reply.status_code == 431


def test_endless_headers_are_cut_off(serving: Serving) -> None:
    with connect(serving) as connection:
        connection.sendall(b"GET /live HTTP/1.1\r\nHost: localhost\r\n")
        sent, most = 0, 1000 * MAX_HEAD_BYTES  # far more than the system's buffers take
        try:
            while sent < most:
                sent += connection.send(b"X-A: " + b"x" * 4000 + b"\r\n")
        except OSError:
            pass
    assert sent < most


def test_several_requests_in_one_write_are_all_answered(serving: Serving) -> None:
    one = b"GET /live HTTP/1.1\r\nHost: localhost\r\n\r\n"
    with connect(serving) as connection:
        connection.sendall(one * 5 + b"GET /live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.count(b"HTTP/1.1 200 OK") == 6


Json = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=3),
    max_leaves=6,
)
Fields = st.sampled_from(sorted(known(ChatFields) | known(CompletionFields) | set(REFUSED) | HINTS))
Paths = st.sampled_from([CHAT, "/v1/completions", "/tokenize", "/detokenize", "/inference/oneseek"])


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(path=Paths, fields=st.dictionaries(Fields, Json, max_size=4), raw=st.binary(max_size=30))
def test_no_body_makes_the_server_fail(
    client: httpx.Client, path: str, fields: dict[str, Any], raw: bytes
) -> None:
    sound: dict[str, Any] = {
        CHAT: {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1},
        "/v1/completions": {"prompt": "Hi", "max_tokens": 1},
        "/tokenize": {"prompt": "Hi"},
        "/detokenize": {"tokens": [70]},
        "/inference/oneseek": {"text": "Hi", "max_tokens": 1},
    }[path]
    for body in (json.dumps(sound | fields), json.dumps(fields), raw):
        reply = client.post(path, content=body, headers={"Content-Type": "application/json"})
        assert reply.status_code in (200, 400, 404), reply.text
        if reply.status_code != 200:
            assert set(reply.json()["error"]) == {"message", "type", "param", "code"}


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(adapter=st.binary(max_size=20), language=st.binary(max_size=20), request_id=st.binary(max_size=20))
def test_no_header_makes_the_server_fail(
    serving: Serving, adapter: bytes, language: bytes, request_id: bytes
) -> None:
    def clean(value: bytes) -> str:
        return bytes(b for b in value if b not in b"\r\n\0").decode("latin-1")

    body = json.dumps(
        {"messages": [{"role": "user", "content": "Hi"}], "max_tokens": 1, "model": EN}
    ).encode()
    lines = [
        f"X-OneSeek-Adapter: {clean(adapter)}",
        f"Accept-Language: {clean(language)}",
        f"X-Request-ID: {clean(request_id)}",
        "Connection: close",
    ]
    with connect(serving) as connection:
        connection.sendall(post(body, CHAT, *lines))
        received = b""
        while piece := connection.recv(65536):
            received += piece
    assert received.split(b" ", 2)[1] in (b"200", b"400", b"404")
