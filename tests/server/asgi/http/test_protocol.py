"""What a connection makes of bytes, however they are cut: whole requests, or an answer in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import pytest
import uvicorn
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from server.asgi.http.arrival import SMALL_BODY
from server.asgi.http.limits import MAX_FRAMING_BYTES, MAX_PIPELINED, MAX_URL_BYTES
from server.asgi.http.protocol import BoundedProtocol
from server.asgi.http.transport import LingeringTransport
from server.asgi.http.wire import Wire
from server.asgi.middleware import Errors, Receipts
from server.asgi.refusals import Refusals
from server.metrics.metrics import Metrics

pytestmark = pytest.mark.anyio


@dataclass(frozen=True)
class Seen:
    """A request as the application has met it."""

    method: str
    path: str
    headers: dict[bytes, bytes]
    body: bytes


class Echo:
    """An application that notes its requests and answers each with its number."""

    def __init__(self) -> None:
        self.seen: list[Seen] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        body = b""
        while scope["path"] != "/unread":
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body", False):
                break
        # Whatever came after the head must not be here, so look late.
        await asyncio.sleep(0)
        self.seen.append(Seen(scope["method"], scope["path"], dict(scope["headers"]), body))
        answer = b"%d" % len(self.seen)
        headers = [(b"content-length", b"%d" % len(answer))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": answer})


class Pipe(asyncio.Transport):
    """The client's end of a connection: what it has been sent."""

    def __init__(self) -> None:
        super().__init__()
        self.sent = b""
        self.closed = self.ended = self.paused = self.aborted = False
        self.unsent = 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        assert not self.ended
        self.sent += data

    def get_write_buffer_size(self) -> int:
        return self.unsent

    def abort(self) -> None:
        self.aborted = True

    def can_write_eof(self) -> bool:
        return True

    def write_eof(self) -> None:
        self.ended = True

    def close(self) -> None:
        self.closed = True

    def is_closing(self) -> bool:
        return self.closed

    def pause_reading(self) -> None:
        self.paused = True

    def resume_reading(self) -> None:
        self.paused = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return default


class Client:
    """A connection to `Echo`, in this event loop."""

    def __init__(self, wire: Wire | None = None) -> None:
        self.echo, self.pipe, metrics = Echo(), Pipe(), Metrics()
        app: ASGIApp = Receipts(Errors(Refusals(self.echo), metrics), metrics)
        config = uvicorn.Config(app, ws="none", lifespan="off", log_config=None)
        self.protocol = BoundedProtocol(
            config, ServerState(), {}, asyncio.get_running_loop(), wire=wire or Wire(8, 1 << 20)
        )
        self.protocol.connection_made(self.pipe)

    async def send(self, *parts: bytes) -> None:
        """Deliver `parts` one by one, as far as the server reads."""
        for part in parts:
            await self._settle()
            if self.pipe.closed:
                return
            self.protocol.data_received(part)
        await self._settle()

    async def _settle(self) -> None:
        for _ in range(8):
            await asyncio.sleep(0)

    @property
    def statuses(self) -> list[int]:
        return [int(line[:3]) for line in self.pipe.sent.split(b"HTTP/1.1 ")[1:] if line[:3] != b"100"]

    def error(self) -> dict[str, Any]:
        """The error in the last answer, whose head names a request."""
        head, _, body = self.pipe.sent.rpartition(b"HTTP/1.1 ")[2].partition(b"\r\n\r\n")
        assert b"\r\nx-request-id: " in head
        assert b"\r\nconnection: close" in head
        return msgspec.json.decode(body, type=dict[str, dict[str, Any]])["error"]

    def leave(self) -> None:
        self.protocol.connection_lost(None)


def chunked(body: bytes, sizes: Iterable[int], trailers: bytes = b"") -> bytes:
    pieces: list[bytes] = []
    for size in sizes:
        if body:
            piece, body = body[:size], body[size:]
            pieces.append(b"%x\r\n%s\r\n" % (len(piece), piece))
    if body:
        pieces.append(b"%x\r\n%s\r\n" % (len(body), body))
    return b"".join(pieces) + b"0\r\n" + trailers + b"\r\n"


OFFERS = [
    b"",
    b"Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABk\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Key: x\r\n",
    b"Upgrade: TLS/1.0, HTTP/2.0\r\nConnection: keep-alive, Upgrade\r\n",
    b"Upgrade: h2c\r\n",
    b"Upgrade: h2c\r\nUpgrade: foo\r\nConnection: Upgrade\r\nExpect: 100-continue\r\n",
]
BODIES = st.one_of(
    st.binary(max_size=40),
    # What would run as a request if it were read as one.
    st.sampled_from([b"GET /version HTTP/1.1\r\nHost: x\r\n\r\n", b"\r\n\r\n", b"0\r\n\r\n"]),
)


@st.composite
def requests(draw: st.DrawFn) -> tuple[bytes, Seen]:
    """A request on the wire, and what it means."""
    method = draw(st.sampled_from(["GET", "POST"]))
    path = draw(st.sampled_from(["/", "/v1/chat/completions"]))
    offer, body = draw(st.sampled_from(OFFERS)), draw(BODIES)
    framing = draw(st.sampled_from(["length", "chunks", "none"]))
    head = b"%s %s HTTP/1.1\r\nHost: x\r\n%s" % (method.encode(), path.encode(), offer)
    if framing == "length":
        return head + b"Content-Length: %d\r\n\r\n" % len(body) + body, Seen(method, path, {}, body)
    if framing == "none":
        return head + b"\r\n", Seen(method, path, {}, b"")
    trailers = draw(
        st.sampled_from([b"", b"X-OneSeek-Adapter: other\r\n", b"X-A: b\r\nX-OneSeek-Adapter: other\r\n"])
    )
    coded = chunked(body, draw(st.lists(st.integers(1, 9), max_size=4)), trailers)
    return head + b"Transfer-Encoding: chunked\r\n\r\n" + coded, Seen(method, path, {}, body)


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


@examples(max_examples=150, deadline=None)
@given(
    wanted=st.lists(requests(), min_size=1, max_size=4),
    places=st.one_of(st.lists(st.integers(0, 10**6), max_size=6), st.just(range(10**4))),
)
def test_requests_are_read_whole_wherever_they_are_cut(
    wanted: list[tuple[bytes, Seen]], places: Sequence[int]
) -> None:
    data = b"".join(raw for raw, _ in wanted)

    async def run() -> Client:
        client = Client()
        await client.send(*cut(data, places))
        await client.send(*([b""] * 8))
        client.leave()
        return client

    client = asyncio.run(run())
    seen = client.echo.seen
    assert [(s.method, s.path, s.body) for s in seen] == [(s.method, s.path, s.body) for _, s in wanted]
    assert client.statuses == [200] * len(wanted)
    for request in seen:
        assert b"x-oneseek-adapter" not in request.headers
        assert b"x-a" not in request.headers


async def test_an_offer_does_not_reach_the_application() -> None:
    client = Client()
    await client.send(
        b"POST /a HTTP/1.1\r\nHost: x\r\n" + OFFERS[1] + b"X-B: c\r\nContent-Length: 2\r\n\r\nhi"
    )
    (request,) = client.echo.seen
    assert b"upgrade" not in request.headers
    assert (request.headers[b"x-b"], request.body) == (b"c", b"hi")
    client.leave()


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    ("data", "status", "code"),
    [
        (b"\x16\x03\x01\x02\x00\x01", 400, "malformed_request"),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400, "malformed_request"),
        (b"GET / HTTP/1.1\r\nHost x\r\n\r\n", 400, "malformed_request"),
        (b"GET http://[ HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed_request"),
        (POST + b"Content-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "malformed_request"),
        (POST + b"Transfer-Encoding: gzip\r\n\r\nab", 501, "unsupported_transfer_encoding"),
        (POST + b"Transfer-Encoding: gzip, chunked\r\n\r\n0\r\n\r\n", 501, "unsupported_transfer_encoding"),
        (
            POST + (b"Transfer-Encoding: chunked\r\n" * 2) + b"\r\n0\r\n\r\n",
            400,
            "malformed_request",
        ),
        (CHUNKS + b"zz\r\n", 400, "malformed_request"),
        (CHUNKS + b"2\r\nab\r\nzz\r\n", 400, "malformed_request"),
        (b"CONNECT x:80 HTTP/1.1\r\nHost: x\r\n\r\n", 405, "method_not_allowed"),
        (b"GET /" + b"x" * MAX_URL_BYTES + b" HTTP/1.1\r\nHost: x\r\n\r\n", 414, "uri_too_long"),
        (b"GET /" + b"x" * MAX_URL_BYTES, 414, "uri_too_long"),
    ],
)
@pytest.mark.parametrize("before", [0, 2])
async def test_what_is_no_request_is_told_so_in_its_turn(
    data: bytes, status: int, code: str, before: int
) -> None:
    client = Client()
    await client.send(GET * before + data)
    await client.send(b"", b"", b"")
    assert client.statuses == [200] * before + [status]
    assert client.error()["code"] == code
    assert client.pipe.ended or client.pipe.closed
    await client.send(GET)
    assert len(client.statuses) == before + 1, "nothing more is read"
    client.leave()


async def test_a_broken_request_is_answered_under_its_own_name() -> None:
    client = Client()
    await client.send(b"GET / HTTP/1.1\r\nX-Request-ID: mine\r\nHost: x\r\nbro ken\r\n\r\n")
    assert b"\r\nx-request-id: mine\r\n" in client.pipe.sent
    client.leave()


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


@pytest.mark.parametrize(
    ("head", "kept"),
    [
        (b"Content-Length: 2\r\n\r\n", True),
        (b"Content-Length: %d\r\n\r\n" % (SMALL_BODY + 1), False),
        (b"Transfer-Encoding: chunked\r\n\r\n", False),
        (b"Content-Length: 2\r\nExpect: 100-continue\r\n\r\n", False),
    ],
)
async def test_an_answer_before_the_body_keeps_the_connection_if_little_is_to_come(
    head: bytes, kept: bool
) -> None:
    client = Client()
    await client.send(b"POST /unread HTTP/1.1\r\nHost: x\r\n" + head)
    assert (b"connection: close" in client.pipe.sent) is not kept
    assert client.pipe.ended is not kept, "what may still come is read, so that the answer is seen"
    if kept:
        await client.send(b"hi" + GET)
        assert client.statuses == [200, 200]
    client.leave()


async def test_a_client_that_leaves_ends_the_request_that_is_served_and_not_only_the_last() -> None:
    ended = asyncio.Event()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        ended.set()

    client = Client()
    client.protocol.app = app  # pyright: ignore[reportAttributeAccessIssue] # uvicorn has types of its own
    await client.send(GET + GET)
    client.leave()
    await asyncio.wait_for(ended.wait(), 10)


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


async def test_while_draining_only_probes_and_metrics_are_answered() -> None:
    wire = Wire(8, 1 << 20)
    wire.draining = True
    for path, status in (
        ("/live", 200),
        ("/metrics", 200),
        ("/version", 200),
        ("/ready", 503),
        ("/v1/x", 503),
    ):
        client = Client(wire)
        await client.send(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert client.statuses == [status]
        if status == 503:
            assert client.error()["code"] == "shutting_down"
            assert b"\r\nretry-after: " in client.pipe.sent
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


def test_json_of_errors_is_openais() -> None:
    async def run() -> Client:
        client = Client()
        await client.send(b"nonsense\r\n\r\n")
        client.leave()
        return client

    error = asyncio.run(run()).error()
    assert set(error) == {"message", "type", "param", "code"}
    assert "pip" not in json.dumps(error)
