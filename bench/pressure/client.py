"""An HTTP/1.1 client that needs little CPU: plain sockets, one request at a time on each connection."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncGenerator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any, cast
from urllib.parse import urlsplit

CHAT = "/v1/chat/completions"


@dataclass(frozen=True, slots=True)
class Reply:
    """The answer to a request. Times are in seconds after the request was sent."""

    status: int
    head: bytes
    body: bytes
    first: float
    """Seconds until the first byte of the body."""
    total: float


def chat(
    text: str, tokens: int, *, model: str, key: str = "", headers: Mapping[str, str] | None = None
) -> bytes:
    """Return the bytes of a request for a streamed chat of exactly `tokens` tokens."""
    body: dict[str, Any] = {"model": model, "messages": [{"role": "user", "content": text}], "stream": True}
    body |= {"max_tokens": tokens, "ignore_eos": True, "temperature": 0}
    content = json.dumps(body).encode()
    lines = [f"POST {CHAT} HTTP/1.1", "Host: 127.0.0.1", "Content-Type: application/json"]
    lines += [f"Content-Length: {len(content)}"]
    if key:
        lines.append(f"Authorization: Bearer {key}")
    lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
    return "\r\n".join([*lines, "", ""]).encode() + content


class PressureConnection(asyncio.Protocol):
    """A connection to the server, for one request at a time."""

    def __init__(self) -> None:
        self._transport: asyncio.Transport | None = None
        self._received = bytearray()
        self._answer: asyncio.Future[Reply] | None = None
        self._sent = self._first = 0.0
        self.open = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Store the transport of the new connection."""
        # uvloop's transport is none of asyncio's classes.
        self._transport, self.open = cast(asyncio.Transport, transport), True

    def connection_lost(self, exc: Exception | None) -> None:
        """Mark the connection as closed. If a request waits for its answer, fail it with
        `ConnectionError`.
        """
        self.open = False
        if self._answer is not None and not self._answer.done():
            self._answer.set_exception(
                ConnectionError("the server closed the connection before its answer was complete")
            )

    def data_received(self, data: bytes) -> None:
        """Collect received bytes until the answer is complete, and then return it to the waiting request."""
        self._received += data
        split = self._received.find(b"\r\n\r\n")
        if split < 0 or self._answer is None or self._answer.done():
            return
        head, size = bytes(self._received[:split]).lower(), len(self._received) - split - 4
        if size and not self._first:
            self._first = time.perf_counter() - self._sent
        _, marked, length = head.partition(b"content-length: ")
        if marked:
            whole = size >= int(length.split(b"\r\n", 1)[0])
        else:
            whole = self._received.endswith(b"\r\n0\r\n\r\n")
        if whole:
            status, body = int(head[9:12]), bytes(self._received[split + 4 :])
            total = time.perf_counter() - self._sent
            self._answer.set_result(Reply(status, head, body, self._first, total))

    async def ask(self, request: bytes) -> Reply:
        """Send a request and return its answer. Raises `ConnectionError` if the connection is lost."""
        assert self._transport is not None
        self._received.clear()
        self._answer, self._first = asyncio.get_running_loop().create_future(), 0.0
        self._sent = time.perf_counter()
        self._transport.write(request)
        return await self._answer

    def close(self) -> None:
        """Close the connection to the server."""
        if self._transport is not None:
            self._transport.abort()


class Pool:
    """A pool of connections to one server, which are opened when needed."""

    def __init__(self, url: str) -> None:
        address = urlsplit(url)
        self._host, self._port = address.hostname or "127.0.0.1", address.port or 80
        self._idle: list[PressureConnection] = []
        self._busy: set[PressureConnection] = set()

    async def ask(self, request: bytes) -> Reply:
        """Send a request over an idle connection, or over a new one if none is idle. Return the answer.
        Raises `OSError` if the connection fails.
        """
        while self._idle and not self._idle[-1].open:
            self._idle.pop()
        if self._idle:
            wire = self._idle.pop()
        else:
            loop = asyncio.get_running_loop()
            _, wire = await loop.create_connection(PressureConnection, self._host, self._port)
        self._busy.add(wire)
        done = False
        try:
            reply = await wire.ask(request)
            done = True
        finally:
            self._busy.discard(wire)
            if done and wire.open:
                self._idle.append(wire)
            else:
                wire.close()
        return reply

    def close(self) -> None:
        """Close all connections to the server."""
        for wire in (*self._idle, *self._busy):
            wire.close()


@asynccontextmanager
async def pool(url: str) -> AsyncGenerator[Pool]:
    """Yield a pool of connections to `url`, and close them when the `with` block ends."""
    made = Pool(url)
    try:
        yield made
    finally:
        made.close()
