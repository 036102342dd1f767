"""Ends work that nobody waits for any more: the client went away, or the request took too long."""

from __future__ import annotations

import asyncio
from types import TracebackType

from starlette.requests import ClientDisconnect
from starlette.types import Receive

from server.exchange import Exchange


class cancel_on_disconnect:  # noqa: N801 - reads as a statement, like asyncio.timeout
    """`async with while_wanted(exchange, receive, limit):` cancels its block once its result is not wanted.

    The block then ends with `ClientDisconnect`, or with `TimeoutError` after `limit` seconds (None: no limit)
    from the request's arrival in the block. The request's body must have been read before.
    """

    def __init__(self, exchange: Exchange, receive: Receive, limit: float | None) -> None:
        self._exchange = exchange
        self._receive = receive
        self._limit = limit
        self._verdict: Exception | None = None

    async def __aenter__(self) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._cancelling = task.cancelling()
        self._watcher = asyncio.create_task(self._watch())

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._watcher.cancel()
        if self._verdict is None:
            return
        if self._task.uncancel() <= self._cancelling and kind is asyncio.CancelledError:
            raise self._verdict from error

    async def _watch(self) -> None:
        try:
            async with asyncio.timeout(self._limit):
                while (await self._receive())["type"] != "http.disconnect":
                    pass
            self._verdict, self._exchange.cancel_reason = ClientDisconnect(), "disconnect"
        except TimeoutError:
            self._verdict, self._exchange.cancel_reason = TimeoutError(), "timeout"
        self._task.cancel()
