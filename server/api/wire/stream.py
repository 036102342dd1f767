"""An answer as server-sent events: one write for what has arrived, whatever it holds."""

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
"""What a silent stream sends; every reader of events passes over it."""

SCORED = 16
"""Tokens with log probabilities that are written at once."""


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

    Nothing is sent before the first delta or comment, so an error up to there is an ordinary answer with its
    own status; one that comes later is an event, also where the time is up. A silent stream sends comments.
    """

    def __init__(self, deltas: Deltas, chunks: Chunks, aside: OneThread) -> None:
        super().__init__()
        self._deltas = deltas
        self._chunks = chunks
        self._aside = aside
        self._scored = 0
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        exchange: Exchange = scope[EXCHANGE]
        cancel_scope = cancel_scope_of(scope)
        try:
            with cancel_scope.unwind():
                # In a task of its own, so that a token wakes this alone and not every layer around it.
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
            async with writing:  # a comment never comes between a head and what follows it
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
        """What `work` returns. Log probabilities of many tokens are written apart from the event loop."""
        return work() if scored <= SCORED else await self._aside.run(work)

    def _written(self, deltas: list[tuple[int, Delta]]) -> bytes:
        return b"".join([self._chunks.delta(index, delta) for index, delta in deltas])


class PieceStream(Response):
    """Streams `pieces`, whole events each, that end with their own last word.

    Nothing is sent before the first piece; an error up to there is an ordinary answer. One that comes later
    is written by `render_failure`.
    """

    def __init__(self, pieces: AsyncGenerator[bytes], render_failure: Callable[[ErrorReply], bytes]) -> None:
        super().__init__()
        self._pieces = pieces
        self._render_failure = render_failure
        self._started = False

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send it."""
        exchange: Exchange = scope[EXCHANGE]
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
    """Tokens that it has log probabilities of."""
    return len(delta.logprobs) + len(delta.prompt_logprobs or ())


def _reply_for(error: Exception, exchange: Exchange) -> ErrorReply:
    reply = reply_for(error)
    exchange.status = reply.status
    if reply.code == "internal_error":
        log.error("request %s failed in mid-stream", exchange.request_id, exc_info=error)
    return reply
