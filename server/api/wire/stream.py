"""Sends an answer as server-sent events. All deltas (pieces of text) that have arrived are sent in
one write.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from functools import partial
from typing import Protocol

from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from server.api.rendering.error_replies import reply_for
from server.api.wire.disconnect import cancel_scope_of
from server.api.wire.heartbeat import Heartbeat
from server.errors import ErrorReply
from server.exchange import EXCHANGE, Exchange
from server.request import Delta, Deltas
from server.serving.one_thread import OneThread

log = logging.getLogger("oneseek.api")

_HEADERS = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-cache"),
    (b"x-accel-buffering", b"no"),
]

COMMENT = b": keep-alive\n\n"
"""Comment that a silent stream sends. Readers of server-sent events ignore it."""

SCORED = 16
"""Maximum number of tokens whose log probabilities are encoded on the event loop. More are encoded in a
worker thread.
"""


class Chunks(Protocol):
    """Interface of the encoders that turn an answer into an endpoint's events."""

    def opening(self) -> bytes:
        """Return the events to send before the first delta."""
        ...

    def delta(self, index: int, delta: Delta) -> bytes:
        """Return the events for one delta; empty if there is nothing to show."""
        ...

    def closing(self) -> bytes:
        """Return the events after the last delta, including the end of the stream."""
        ...

    def render_failure(self, error: ErrorReply) -> bytes:
        """Return the events for an error after the first delta; they are sent instead of `closing`."""
        ...


class EventStream(Response):
    """Streams the deltas (pieces) of an answer as events that `chunks` encodes.

    Nothing is sent before the first delta or comment. So an earlier error becomes an ordinary response with
    its own status, and a later error or timeout becomes an event. A silent stream sends comments.
    """

    def __init__(self, deltas: Deltas, chunks: Chunks, aside: OneThread) -> None:
        super().__init__()
        self._deltas = deltas
        self._chunks = chunks
        self._aside = aside
        self._scored = 0
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the events of all deltas, then the closing events or an error event."""
        exchange: Exchange = scope[EXCHANGE]
        exchange.streamed = True
        cancel_scope = cancel_scope_of(scope)
        try:
            with cancel_scope.unwind():
                # In a separate task, so that a token wakes only this task and not every middleware around it.
                await asyncio.create_task(self._send(send, exchange.send or send))
            last = await self._made(self._scored, self._chunks.closing)
        except ClientDisconnect:
            raise
        except Exception as error:
            if not self._started:
                raise
            last = self._chunks.render_failure(_reply_for(error, exchange))
        cancel_scope.close()
        send = exchange.send or send
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send(self, send: Send, send_body: Send) -> None:
        writing = asyncio.Lock()

        async def write(body: bytes) -> None:
            async with writing:  # no comment between the response's start and its first event
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
                if body:
                    await send_body({"type": "http.response.body", "body": body, "more_body": True})

        async with aclosing(self._deltas) as stream, Heartbeat(partial(write, COMMENT)) as heart:
            opening = self._chunks.opening
            async for deltas in stream:
                scored = sum([_scored(delta) for _, delta in deltas])
                self._scored += scored
                body = opening() + await self._made(scored, partial(self._written, deltas))
                opening = _nothing
                await write(body)
                if body:
                    heart.moved()

    async def _made(self, scored: int, work: Callable[[], bytes]) -> bytes:
        """Return the result of `work`, which runs in a worker thread if it encodes many log probabilities."""
        return work() if scored <= SCORED else await self._aside.run(work)

    def _written(self, deltas: list[tuple[int, Delta]]) -> bytes:
        return b"".join([self._chunks.delta(index, delta) for index, delta in deltas])


class PieceStream(Response):
    """Streams `pieces`, each of which holds complete server-sent events. The last piece ends the stream.

    Nothing is sent before the first piece, so an earlier error becomes an ordinary response. A later error is
    encoded by `render_failure`.
    """

    def __init__(self, pieces: AsyncGenerator[bytes], render_failure: Callable[[ErrorReply], bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._render_failure = render_failure
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the pieces, then an error event if one of them fails."""
        exchange: Exchange = scope[EXCHANGE]
        exchange.streamed = True
        cancel_scope = cancel_scope_of(scope)
        last = b""
        try:
            with cancel_scope.unwind():
                await asyncio.create_task(self._send(send, exchange.send or send))
        except ClientDisconnect:
            raise
        except Exception as error:
            if not self._started:
                raise
            last = self._render_failure(_reply_for(error, exchange))
        cancel_scope.close()
        send = exchange.send or send
        await send({"type": "http.response.body", "body": last, "more_body": False})

    async def _send(self, send: Send, send_body: Send) -> None:
        async with aclosing(self._pieces) as stream:
            async for piece in stream:
                if not self._started:
                    self._started = True
                    await send({"type": "http.response.start", "status": 200, "headers": list(_HEADERS)})
                await send_body({"type": "http.response.body", "body": piece, "more_body": True})


def _nothing() -> bytes:
    return b""


def _scored(delta: Delta) -> int:
    """Return the number of tokens in the delta that have log probabilities."""
    return len(delta.logprobs) + len(delta.prompt_logprobs or ())


def _reply_for(error: Exception, exchange: Exchange) -> ErrorReply:
    reply = reply_for(error)
    exchange.status, exchange.error = reply.status, reply.code or "error"
    if reply.code == "internal_error":
        log.error(
            "request %s failed with an unexpected error while its answer was streaming; "
            "the stream ends with an error event",
            exchange.request_id,
            exc_info=error,
        )
    return reply
