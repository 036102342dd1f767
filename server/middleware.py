"""The layers around every endpoint, pure ASGI: `Receipts`, `Errors`, `HeaderLimits`, `ApiKeys`.

Decisions are made on `scope["path"]`, the path that is routed on, never on what a Host header shapes.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
from collections.abc import Sequence

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.body import header
from server.api.errors import ApiError, ErrorReply, reply_for
from server.api.exchange import exchange_of, open_exchange
from server.metrics import Metrics

log = logging.getLogger("oneseek.api")

OPEN_PATHS = frozenset({"/live", "/ready", "/health"})
"""What answers without a key: probes cannot carry one. `/health` then says no more than its status."""

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

CLIENT_CLOSED = 499
"""The status that logs and metrics give a request whose client went away; never sent."""


class Receipts:
    """Gives each request its exchange, puts id and receipt on whatever is answered, and counts it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = open_exchange(scope, send)

        async def send_with_receipt(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.status = message["status"]
                headers = message.setdefault("headers", [])
                headers.append((b"x-request-id", exchange.request_id.encode("latin-1")))
                headers += [(k.lower().encode(), v.encode("latin-1")) for k, v in exchange.receipt.items()]
            await send(message)

        try:
            await self.app(scope, receive, send_with_receipt)
        finally:
            self.metrics.answered(exchange)


class Errors:
    """Answers what an endpoint raised; an unexpected error is logged, and its client told nothing of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        started = False

        async def watched_send(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self.app(scope, receive, watched_send)
        except ClientDisconnect:
            exchange_of(scope).status = CLIENT_CLOSED
        except Exception as error:
            if started:
                raise
            reply = reply_for(error)
            self.metrics.rejected.labels(reply.code or "error").inc()
            await _send_error(reply, error, scope, send)


async def _send_error(reply: ErrorReply, error: Exception, scope: Scope, send: Send) -> None:
    if reply.status >= 500 and reply.code == "internal_error":
        log.error("request %s failed", exchange_of(scope).request_id, exc_info=error)
    body = reply.body()
    headers = [(b"content-type", b"application/json"), (b"content-length", b"%d" % len(body))]
    headers += [(name.lower().encode(), value.encode("latin-1")) for name, value in reply.headers.items()]
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})


class HeaderLimits:
    """Refuses requests with more or larger headers than any client of this API sends."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if scope["type"] == "http":
            headers = scope["headers"]
            size = sum(len(name) + len(value) for name, value in headers)
            if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
                message = f"At most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together are taken."
                raise ApiError(ErrorReply(431, message, code="headers_too_large"))
        await self.app(scope, receive, send)


class ApiKeys:
    """Lets a request pass with one of the keys as a bearer token; without keys, lets everything pass."""

    def __init__(self, app: ASGIApp, keys: Sequence[str]) -> None:
        self.app = app
        self.digests = [hashlib.sha256(key.encode()).digest() for key in keys]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or raise `ApiError` (401)."""
        if scope["type"] == "http":
            exchange = exchange_of(scope)
            exchange.tenant, exchange.authenticated = self._identify(scope)
            if not exchange.authenticated and scope["path"] not in OPEN_PATHS:
                headers = {"WWW-Authenticate": "Bearer"}
                message = "A valid API key is needed: Authorization: Bearer KEY."
                raise ApiError(ErrorReply(401, message, code="invalid_api_key", headers=headers))
        await self.app(scope, receive, send)

    def _identify(self, scope: Scope) -> tuple[str, bool]:
        if not self.digests:
            return "", True
        scheme, _, key = (header(scope, b"authorization") or "").partition(" ")
        presented = hashlib.sha256(key.strip().encode("latin-1")).digest()
        # Every key is compared, so that the time says nothing of which one matched.
        matches = [hmac.compare_digest(presented, known) for known in self.digests]
        if scheme.lower() != "bearer" or not any(matches):
            return "", False
        return presented.hex()[:32], True
