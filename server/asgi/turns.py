"""Requests that arrive together begin one after another, so that they hold up nothing that streams."""

from __future__ import annotations

import asyncio
from collections import deque

from starlette.types import ASGIApp, Receive, Scope, Send

from server.exchange import EXCHANGE, Exchange


class Turns:
    """Lets one request begin in each turn of the event loop; in between, the tokens of others are sent.

    Most of a request's own work is done when it begins. Without this, sixty that come at once would first be
    parsed and routed, all of them, before the first token of any is sent. Askers (keys, or addresses if no
    key is presented) take turns: whoever sends one request waits for at most one of each other asker.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self._waiting: dict[str, deque[asyncio.Future[None]]] = {}
        """By asker; the one whose turn is next comes first."""
        self._taken = False
        """True if a request has begun in this turn."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            await self._turn(scope)
        await self.app(scope, receive, send)

    async def _turn(self, scope: Scope) -> None:
        loop = asyncio.get_running_loop()
        if self._taken:
            mine = loop.create_future()
            self._waiting.setdefault(_asker(scope), deque()).append(mine)
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


def _asker(scope: Scope) -> str:
    exchange: Exchange = scope[EXCHANGE]
    client = scope.get("client")
    return exchange.tenant or (client[0] if client else "")
