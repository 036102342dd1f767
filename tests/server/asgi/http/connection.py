"""A connection to an application that echoes, in this event loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import msgspec
import uvicorn
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.server import ServerState

from server.asgi.http.protocol import BoundedProtocol
from server.asgi.http.wire import Wire
from server.asgi.middleware import Errors, Receipts
from server.asgi.refusals import Refusals
from server.metrics.metrics import Metrics


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


def cut(data: bytes, places: Iterable[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % len(data) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


GET = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
POST = b"POST / HTTP/1.1\r\nHost: x\r\n"
CHUNKS = POST + b"Transfer-Encoding: chunked\r\n\r\n"
