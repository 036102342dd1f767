"""Cancels work on a request when its client has disconnected or its time limit has passed."""

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
    """Cancels the block `with CancelScope(exchange, receive, limit) as scope:` if the client disconnects or
    the time is up.

    The block then raises `ClientDisconnect` if the client has disconnected. It raises `TimeoutError` once
    `limit` seconds have passed since the request arrived (None: no limit), or `ApiError` (408) if the
    request's body has not arrived by then. The block must read the body with `scope.receive`, which then
    watches for disconnects.
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
        """Raise the scope's error already inside the `with` block, so that a stream can send a last event."""
        try:
            yield
        except asyncio.CancelledError as error:
            verdict = self._take_back()
            if verdict is None:
                raise
            raise verdict from error

    async def receive(self) -> Message:
        """Return the next ASGI message: a part of the body, or `http.disconnect`."""
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
        """Stop watching for disconnects and the time limit, since the answer is complete. Idempotent."""
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
        """Return the error for which this scope cancelled the task. None if this scope did not cancel it, if
        other code cancelled it too, or if the error was returned before.
        """
        verdict, self._verdict = self._verdict, None
        if verdict is None or self._task.uncancel() > self._cancelling:
            return None
        return verdict


async def until_gone(receive: Receive) -> None:
    """Wait until the client disconnects, then raise `ClientDisconnect`. Call this after reading the body."""
    while (await receive())["type"] != "http.disconnect":
        pass
    raise ClientDisconnect


def enter(scope: Scope, cancel_scope: CancelScope) -> None:
    """Store the request's cancel scope in the ASGI scope, so that `cancel_scope_of` finds it."""
    scope[_KEY] = cancel_scope


def cancel_scope_of(scope: Scope) -> CancelScope:
    """Return the cancel scope that `enter` has stored for this request."""
    found = scope[_KEY]
    assert isinstance(found, CancelScope)
    return found
