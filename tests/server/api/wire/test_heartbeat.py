"""A silent stream says that it lives; one that speaks is left alone."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import httpx
import httpx2
import openai
import pytest
from starlette.types import Message, Scope

from server.api.wire import heartbeat
from server.api.wire.disconnect import CancelScope, enter
from server.api.wire.heartbeat import Heartbeat
from server.api.wire.stream import COMMENT, EventStream
from server.errors import EngineError, ErrorReply
from server.exchange import EXCHANGE, Exchange
from server.request import Delta, Deltas
from server.serving.one_thread import OneThread
from tests.server.http_server import Serving
from tests.server.virtual_clock import run_at_once

LONG: dict[str, Any] = {
    "model": "tiny",
    "messages": [{"role": "user", "content": "hi"}],
    "max_tokens": 200,
    "ignore_eos": True,
}
CHUNK = (
    b'data: {"id":"1","object":"chat.completion.chunk","created":1,"model":"tiny",'
    b'"choices":[{"index":0,"delta":{"content":"hi"},"finish_reason":null}]}\n\n'
)


def test_it_beats_in_silence_alone() -> None:
    async def work() -> list[float]:
        now, beats = asyncio.get_running_loop().time, list[float]()

        async def beat() -> None:
            beats.append(now())

        async with Heartbeat(beat, 5) as heart:
            for _ in range(10):
                await asyncio.sleep(1)
                heart.moved()
            await asyncio.sleep(12)
        await asyncio.sleep(10)
        return beats

    assert run_at_once(work()) == pytest.approx([15, 20])


def test_one_beat_at_a_time_and_none_after_the_end() -> None:
    async def work() -> int:
        running = 0

        async def beat() -> None:
            nonlocal running
            running += 1
            await asyncio.sleep(60)

        async with Heartbeat(beat, 1):
            await asyncio.sleep(10)
        return running

    assert run_at_once(work()) == 1


def test_a_stream_that_waits_for_the_engine_sends_comments(
    serving: Serving, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The ninth of a batch of eight waits; its client passes over what is no event."""
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 0.005)
    url = serving.url + "/v1/chat/completions"
    others = [
        threading.Thread(target=httpx.post, args=[url], kwargs={"json": LONG, "timeout": 60})
        for _ in range(8)
    ]
    for other in others:
        other.start()
    while serving.counts()['oneseek_requests_running{adapter="base",base="tiny"}'] < 8:
        pass
    answer = httpx.post(url, json=LONG | {"max_tokens": 2, "stream": True}, timeout=60)
    for other in others:
        other.join()
    assert answer.content.startswith(COMMENT)
    assert answer.headers["x-accel-buffering"] == "no"
    assert answer.text.endswith("data: [DONE]\n\n")


def commented(deltas: Deltas) -> bytes:
    """What an event stream of slow deltas sends, its head aside."""
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        await asyncio.Event().wait()
        raise AssertionError

    async def run() -> None:
        exchange = Exchange("test")
        scope: Scope = {"type": "http", EXCHANGE: exchange}
        with CancelScope(exchange, receive, None, body=False) as cancel_scope:
            enter(scope, cancel_scope)
            await EventStream(deltas, Plain(), OneThread())(scope, receive, send)

    run_at_once(run())
    assert [message["type"] for message in sent].count("http.response.start") == 1
    assert sent[0]["type"] == "http.response.start"
    return b"".join(message["body"] for message in sent[1:])


class Plain:
    """Chunks that show their parts."""

    def opening(self) -> bytes:
        return b"<"

    def delta(self, index: int, delta: Delta) -> bytes:
        return delta.text.encode()

    def closing(self) -> bytes:
        return b">"

    def render_failure(self, error: ErrorReply) -> bytes:
        return f"!{error.code}".encode()


async def slow(*texts: str, fails: bool = False) -> Deltas:
    for text in texts:
        await asyncio.sleep(3)
        yield [(0, Delta(text))]
    await asyncio.sleep(3)
    if fails:
        raise EngineError("broken")


def test_comments_stand_before_and_between_events(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 2)
    assert commented(slow("a", "b")) == b"%b<a%bb%b>" % (COMMENT, COMMENT, COMMENT)


def test_an_error_after_a_comment_is_an_event(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(heartbeat, "SILENCE_SECONDS", 2)
    assert commented(slow(fails=True)) == COMMENT + b"!engine_error"


def test_openais_client_passes_over_comments() -> None:
    def handle(_request: httpx2.Request) -> httpx2.Response:
        events = COMMENT + CHUNK + COMMENT + b"data: [DONE]\n\n"
        return httpx2.Response(200, headers={"content-type": "text/event-stream"}, content=events)

    http = httpx2.Client(transport=httpx2.MockTransport(handle))
    with openai.OpenAI(base_url="http://test", api_key="none", http_client=http) as client:
        stream = client.chat.completions.create(model="tiny", messages=[], stream=True)
        assert [chunk.choices[0].delta.content for chunk in stream] == ["hi"]
