"""The first look at the queue: after the headers and the key, before a byte of the body is read."""

from __future__ import annotations

from collections.abc import Callable

from starlette.types import ASGIApp, Receive, Scope, Send

from server.exchange import EXCHANGE, Exchange

GATED = frozenset(
    {
        "/v1/chat/completions",
        "/v1/completions",
        "/v1/responses",
        "/v1/embeddings",
        "/inference/oneseek",
        "/inference/mistral",
        "/inference/llama",
    }
)
"""What takes a place in the queue."""


class Gates:
    """Refuses what has no place in the queue, and gives back the places of whatever has ended."""

    def __init__(self, app: ASGIApp, check: Callable[[Exchange], None]) -> None:
        self.app = app
        self.check = check

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise `EngineBusyError`."""
        if scope["type"] != "http" or scope["path"] not in GATED or scope["method"] != "POST":
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        self.check(exchange)
        try:
            await self.app(scope, receive, send)
        finally:
            if exchange.held is not None:
                exchange.held.close()
