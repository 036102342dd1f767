"""Ends work that nobody waits for any more: the client went away, or the request took too long."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import TracebackType
from typing import Self

from starlette.requests import ClientDisconnect
from starlette.types import Message, Receive, Scope

from server.api.wire.body import late_body
from server.exchange import Exchange

_KEY = "oneseek.cancel_scope"


class CancelScope:
    """`with CancelScope(exchange, receive, limit) as scope:` cancels its block once its result is not wanted.

    The block then ends with `ClientDisconnect`, with `TimeoutError` after `limit` seconds (None: no limit)
    from the request's arrival, or with `ApiError` (408) if a body was to come and had not by then. The block
    has to read the body by `scope.receive`: what follows the body's end is the client's leaving.
    """

    def __init__(
        self, exchange: Exchange, receive: Receive, limit: float | None, *, body: bool = True
    ) -> None:
        self._exchange = exchange
        self._receive = receive
        self._limit = limit
        self._body_pending = body
        self._watcher: asyncio.Task[None] | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._verdict: Exception | None = None
        self._open = True

    def __enter__(self) -> Self:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        if self._limit is not None:
            left = self._limit - (time.perf_counter() - self._exchange.started)
            self._timer = asyncio.get_running_loop().call_later(max(0.0, left), self._expire)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        verdict = self._take_back()
        if verdict is not None and kind is asyncio.CancelledError:
            raise verdict from error

    @contextmanager
    def unwind(self) -> Generator[None]:
        """Raise inside the block what it would end with, so that a stream can say a last word."""
        try:
            yield
        except asyncio.CancelledError as error:
            verdict = self._take_back()
            if verdict is None:
                raise
            raise verdict from error

    async def receive(self) -> Message:
        """The next part of the body, or that the client has left."""
        if self._watcher is not None:
            await asyncio.wait([self._watcher])
            return {"type": "http.disconnect"}
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self._exchange.give_up("disconnect")
        elif not message.get("more_body", False) and self._open:
            self._body_pending = False
            self._watcher = asyncio.create_task(self._watch())
        return message

    def close(self) -> None:
        """Cancel nothing from now on: the answer is whole. Idempotent."""
        self._open = False
        if self._timer is not None:
            self._timer.cancel()
        if self._watcher is not None:
            self._watcher.cancel()

    async def _watch(self) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            pass
        self._end(ClientDisconnect(), "disconnect")

    def _expire(self) -> None:
        self._end(late_body() if self._body_pending else TimeoutError(), "timeout")

    def _end(self, verdict: Exception, reason: str) -> None:
        if self._open:
            self.close()
            self._verdict = verdict
            self._exchange.give_up(reason)
            self._task.cancel()

    def _take_back(self) -> Exception | None:
        """The verdict behind a cancellation, once; None if it was not ours, or not ours alone."""
        verdict, self._verdict = self._verdict, None
        if verdict is None or self._task.uncancel() > self._cancelling:
            return None
        return verdict


async def until_gone(receive: Receive) -> None:
    """Wait until the client has left, once the body is read; raises `ClientDisconnect` then."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def enter(scope: Scope, cancel_scope: CancelScope) -> None:
    """Have `cancel_scope_of` find it."""
    scope[_KEY] = cancel_scope


def cancel_scope_of(scope: Scope) -> CancelScope:
    """The scope that serves this request."""
    found = scope[_KEY]
    assert isinstance(found, CancelScope)
    return found
