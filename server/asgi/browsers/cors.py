"""Adds CORS headers to answers, so that web pages of the origins in `cors_origins` can use the API.

The module `hosts` decides which requests are accepted. Cookies and other browser credentials are never used:
a page sends its API key in `Authorization`, like every client.
"""

from __future__ import annotations

import re

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.config.origins import ANY, CorsOrigins
from server.exchange import EXCHANGE, Exchange

METHODS = "GET, HEAD, POST, DELETE"
MAX_AGE = 600
"""Seconds that a browser may cache the answer to a preflight request."""
_EXPOSED = (
    "X-Request-ID",
    "Retry-After",
    "X-RateLimit-Limit-Requests",
    "X-RateLimit-Remaining-Requests",
    "X-RateLimit-Reset-Requests",
)
"""Response headers of all endpoints that a web page may read, besides the receipt (the `X-OneSeek-*`
headers).
"""
_HEADER_NAMES = re.compile(r"[A-Za-z0-9_-]{1,64}(?: ?, ?[A-Za-z0-9_-]{1,64}){0,63}")


class CrossOrigin:
    """Adds the CORS headers that let a web page of an allowed origin read answers, including errors."""

    def __init__(self, app: ASGIApp, origins: CorsOrigins) -> None:
        self.app = app
        self.origins = origins

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and add the CORS headers to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        origin = exchange.headers.get(b"origin")

        async def send_readable(message: Message) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).extend(self._headers(origin, exchange))
            await send(message)

        await self.app(scope, receive, send_readable)

    def _headers(self, origin: str | None, exchange: Exchange) -> list[tuple[bytes, bytes]]:
        # The answer differs by origin, also for who sent none: a cache must not give it to another.
        headers = [] if self.origins.everything else [(b"vary", b"Origin")]
        if origin is None or not self.origins.allows(origin):
            return headers
        shown = ANY if self.origins.everything else origin
        exposed = ", ".join([*_EXPOSED, *exchange.receipt])
        return [
            *headers,
            (b"access-control-allow-origin", shown.encode("latin-1")),
            (b"access-control-expose-headers", exposed.encode("latin-1")),
        ]


class Preflights:
    """Answers CORS preflight requests, which carry no API key. `OwnPages` has already checked their
    origin.
    """

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a preflight request; pass any other request on."""
        if scope["type"] != "http" or not _is_preflight(scope):
            await self.app(scope, receive, send)
            return
        exchange: Exchange = scope[EXCHANGE]
        headers = [
            (b"access-control-allow-methods", METHODS.encode()),
            (b"access-control-max-age", b"%d" % MAX_AGE),
            (b"vary", b"Access-Control-Request-Headers"),
        ]
        asked = exchange.headers.get(b"access-control-request-headers", "")
        if _HEADER_NAMES.fullmatch(asked):
            headers.append((b"access-control-allow-headers", asked.encode("latin-1")))
        await send({"type": "http.response.start", "status": 204, "headers": headers})
        await send({"type": "http.response.body", "body": b""})


def _is_preflight(scope: Scope) -> bool:
    headers = scope[EXCHANGE].headers
    return (
        scope["method"] == "OPTIONS" and b"origin" in headers and b"access-control-request-method" in headers
    )
