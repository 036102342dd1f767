"""An answer as server-sent events: one write for what has arrived, whatever it holds."""

from __future__ import annotations

import asyncio
import logging
from contextlib import aclosing
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.rendering.error_replies import reply_for
from server.api.wire.disconnect import cancel_on_disconnect
from server.errors import ErrorReply
from server.exchange import Exchange, exchange_of
from server.request import Delta, Deltas

log = logging.getLogger("oneseek.api")

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]


class Chunks(Protocol):
    """How an endpoint writes its stream."""

    def opening(self) -> bytes:
        """Events before the first delta; called before it is written."""
        ...

    def delta(self, index: int, delta: Delta) -> bytes:
        """Events for one delta; nothing where it shows nothing."""
        ...

    def closing(self) -> bytes:
        """Events after the last delta, the stream's end among them."""
        ...

    def render_failure(self, error: ErrorReply) -> bytes:
        """Events for an error after the first delta, in place of `closing`."""
        ...


class EventStream(Response):
    """Streams deltas as `chunks` writes them.

    Nothing is sent before the first delta, so an error up to there is an ordinary answer with its own status;
    one that comes later is an event. `limit` bounds the whole, in seconds.
    """

    def __init__(self, deltas: Deltas, chunks: Chunks, limit: float | None) -> None:
        super().__init__()
        self._deltas = deltas
        self._chunks = chunks
        self._limit = limit
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        exchange = exchange_of(scope)
        try:
            async with cancel_on_disconnect(exchange, receive, self._limit), aclosing(self._deltas) as stream:
                async for deltas in stream:
                    if body := await self._start(send) + self._written(deltas):
                        await send({"type": "http.response.body", "body": body, "more_body": True})
                    break
                # In a task of its own, so that a token wakes this alone and not every layer around it.
                await asyncio.create_task(self._send_rest(stream, exchange.send or send))
            last = self._chunks.closing()
        except ClientDisconnect:
            raise
        except Exception as error:
            if not self._started:
                raise
            last = self._chunks.render_failure(_reply_for(error, exchange))
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send_rest(self, stream: Deltas, send: Send) -> None:
        async for deltas in stream:
            if body := self._written(deltas):
                await send({"type": "http.response.body", "body": body, "more_body": True})

    def _written(self, deltas: list[tuple[int, Delta]]) -> bytes:
        return b"".join([self._chunks.delta(index, delta) for index, delta in deltas])

    async def _start(self, send: Send) -> bytes:
        self._started = True
        await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
        return self._chunks.opening()


def _reply_for(error: Exception, exchange: Exchange) -> ErrorReply:
    reply = reply_for(error)
    exchange.status = reply.status
    if reply.code == "internal_error":
        log.error("request %s failed in mid-stream", exchange.request_id, exc_info=error)
    return reply
