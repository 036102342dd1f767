"""What a connection makes of bytes, however they are cut: whole requests, or an answer in words."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import settings as examples
from hypothesis import strategies as st
from starlette.types import Receive, Scope, Send

from server.asgi.http.arrival import SMALL_BODY
from server.asgi.http.limits import MAX_URL_BYTES
from server.asgi.http.wire import Wire
from tests.server.asgi.http.connection import CHUNKS, GET, POST, Client, Seen, chunked, cut

pytestmark = pytest.mark.anyio
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


def test_json_of_errors_is_openais() -> None:
    async def run() -> Client:
        client = Client()
        await client.send(b"nonsense\r\n\r\n")
        client.leave()
        return client

    error = asyncio.run(run()).error()
    assert set(error) == {"message", "type", "param", "code"}
    assert "pip" not in json.dumps(error)
