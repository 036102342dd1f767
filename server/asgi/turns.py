"""Starts simultaneous requests one after another, so that they do not delay running streams."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

from server.exchange import EXCHANGE, Exchange


class Turns:
    """Starts one request in each iteration of the event loop; in between, tokens of other requests are sent.

    Most of a request's own CPU work happens at its start. Without this class, sixty simultaneous requests
    would all be parsed and routed before the first token of any is sent. Clients (API keys, or addresses
    without a key) take turns: a client with one request waits for at most one request of each other client.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """Maps each client to its waiting requests; the next client comes first."""
        self._taken = False
        """True if a request has already started in this iteration of the event loop."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Wait until the request may start, then pass it on."""
        if scope["type"] == "http":
            await self._turn(scope[EXCHANGE])
        await self.app(scope, receive, send)

    async def _turn(self, exchange: Exchange) -> None:
        loop = asyncio.get_running_loop()
        if self._taken:
            mine = loop.create_future()
            self._waiting.setdefault(exchange.asker, deque()).append(mine)
            await mine
        else:
            self._taken = True
            loop.call_soon(self._next)

    def _next(self) -> None:
        while self._waiting:
            asker, futures = next(iter(self._waiting.items()))
            del self._waiting[asker]
            first = futures.popleft()
            if futures:
                self._waiting[asker] = futures
            if not first.done():  # else it was cancelled
                first.set_result(None)
                asyncio.get_running_loop().call_soon(self._next)
                return
        self._taken = False
