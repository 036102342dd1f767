"""What one connection may cost: the bytes, requests, memory and time that it is given."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Receive, Scope, Send

from server.asgi.http.arrival import SMALL_BODY
from server.asgi.http.limits import MAX_FRAMING_BYTES, MAX_PIPELINED
from server.asgi.http.transport import LingeringTransport
from server.asgi.http.wire import Wire
from tests.server.asgi.http.connection import CHUNKS, GET, POST, Client, chunked, cut

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("piece", [b"X-A: b\r\n", b"x" * 8, b"X-" + b"y" * 1000 + b": z\r\n"])
async def test_trailers_are_bounded_and_not_kept(piece: bytes) -> None:
    client = Client()
    await client.send(CHUNKS + b"2\r\nab\r\n", b"0\r\n", b"X: ")
    for _ in range(2 * MAX_FRAMING_BYTES // (100 * len(piece)) + 1):
        await client.send(piece * 100)
    assert client.statuses == [431]
    assert client.error()["code"] == "trailers_too_large"
    assert not client.echo.seen
    client.leave()


async def test_chunks_of_one_byte_are_a_body_like_any_other() -> None:
    client, body = Client(), b"x" * 20_000
    await client.send(*cut(CHUNKS + chunked(body, [1] * len(body)), range(0, 10**6, 997)))
    assert [request.body for request in client.echo.seen] == [body]
    client.leave()


async def test_headers_without_end_are_cut_off() -> None:
    client = Client()
    await client.send(b"GET / HTTP/1.1\r\nHost: x\r\n", *[b"X-A: " + b"b" * 1000 + b"\r\n"] * 100)
    assert client.statuses == [431]
    assert client.error()["code"] == "headers_too_large"
    client.leave()


async def test_requests_that_wait_for_answers_are_bounded() -> None:
    client = Client()
    await client.send(GET * (MAX_PIPELINED + 50))
    for _ in range(MAX_PIPELINED):
        await client.send(b"")
    assert client.statuses == [200] * (MAX_PIPELINED + 1) + [400]
    assert client.error()["code"] == "too_many_pipelined"
    client.leave()


async def test_nothing_is_read_behind_a_request_that_waits() -> None:
    answered = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        leaving = asyncio.ensure_future(receive())  # as every request is watched
        await answered.wait()
        leaving.cancel()
        await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"0")]})
        await send({"type": "http.response.body", "body": b""})

    client = Client()
    client.protocol.app = app  # pyright: ignore[reportAttributeAccessIssue] # uvicorn has types of its own
    await client.send(POST + b"Content-Length: 1\r\n\r\n")
    assert not client.pipe.paused
    await client.send(b"x" + GET)
    assert client.pipe.paused
    answered.set()
    await client.send()
    assert not client.pipe.paused, "once all is answered"
    assert client.statuses == [200, 200]
    client.leave()


@pytest.mark.parametrize("when", ["paused", "answered"])
async def test_a_client_that_reads_nothing_is_dropped(monkeypatch: pytest.MonkeyPatch, when: str) -> None:
    monkeypatch.setattr(LingeringTransport, "write_seconds", 0.01)
    client = Client()
    client.pipe.unsent = 1000
    if when == "paused":
        client.protocol.pause_writing()
    else:
        await client.send(GET)
    for _ in range(500):
        await asyncio.sleep(0.01)
        if client.pipe.aborted:
            break
    assert client.pipe.aborted
    client.leave()


async def test_of_bodies_that_fill_the_memory_the_next_is_refused_and_small_ones_are_not() -> None:
    wire = Wire(8, 100_000)
    head = POST + b"Content-Length: 300000\r\n\r\n"
    large, refused, small = Client(wire), Client(wire), Client(wire)
    await large.send(head, b"x" * (SMALL_BODY + 90_000))
    await refused.send(head, b"x" * SMALL_BODY)
    assert not refused.statuses
    await refused.send(b"x" * 20_000)
    assert refused.statuses == [503]
    assert refused.error()["code"] == "too_many_bodies"
    assert b"\r\nretry-after: " in refused.pipe.sent
    await small.send(POST + b"Content-Length: %d\r\n\r\n" % SMALL_BODY, b"x" * SMALL_BODY)
    assert small.statuses == [200]
    large.leave()
    assert wire.bodies.held == 0
    another = Client(wire)
    await another.send(head, b"x" * 150_000, b"x" * 10_000)
    assert not another.statuses
    for client in (refused, small, another):
        client.leave()
    assert wire.bodies.held == 0


async def test_a_body_that_stalls_makes_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.asgi.http.wire.STALLED_SECONDS", 0.0)
    wire = Wire(8, 110_000)
    head = POST + b"Content-Length: 170000\r\n\r\n"
    stalled, moving = Client(wire), Client(wire)
    await stalled.send(head, b"x" * 160_000)
    await asyncio.sleep(0.01)
    await moving.send(head, b"x" * 160_000, b"x" * 10_000)
    assert (stalled.statuses, moving.statuses) == ([408], [200])
    assert stalled.error()["code"] == "request_timeout"
    stalled.leave()
    moving.leave()
    assert wire.bodies.held == 0
