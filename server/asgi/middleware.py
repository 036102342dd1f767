"""ASGI middleware around every endpoint: `Receipts`, `Errors`, `HeaderLimits` and `ApiKeys`.

Decisions use `scope["path"]`, the path that is routed, never a URL that a Host header can change.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import uuid
from collections.abc import Sequence
from dataclasses import dataclass

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from server.api.rendering.error_replies import reply_for
from server.asgi.wrong_keys import WrongKeys
from server.errors import ApiError, EngineBusyError, ErrorReply
from server.exchange import EXCHANGE, Exchange
from server.metrics.metrics import Metrics
from server.telemetry.observer import RequestObserver, begin_all, end_all

log = logging.getLogger("oneseek.api")

OPEN_PATHS = frozenset({"/live", "/ready", "/health", "/ping"})
"""Paths of health checks, which need no key, because probes cannot send one. Without a key, `/health` returns
only its status.
"""

KEYLESS_PATHS = OPEN_PATHS | {"/openapi.json", "/docs"}
"""Paths that need no key: health checks, and pages that describe the API, not this server."""

METRICS_PATHS = frozenset({"/metrics", "/metrics/recent"})
"""Paths with usage figures of all tenants, which need a metrics key or an admin key."""
PAGE = "/"
PAGE_PREFIX = "/page/"
"""Prefix of the web page's files, which need no key: they hold no data of this server. The page asks its user
for a key.
"""
ADMIN_PREFIX = "/admin"
ADMIN_PATHS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""Paths that need an admin key, besides every path at or below `ADMIN_PREFIX`."""

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

CLIENT_CLOSED = 499
"""Status in logs and metrics of a request whose client disconnected before the answer; never sent."""


class Receipts:
    """Creates each request's state (`Exchange`), adds request ID and receipt to its answer, and counts the
    request.

    The receipt is the `X-OneSeek-*` headers, which say what answered and why. `observers` are called when a
    request arrives and when it has been answered.
    """

    def __init__(
        self, app: ASGIApp, metrics: Metrics, observers: Sequence[RequestObserver] | None = None
    ) -> None:
        self.app = app
        self.metrics = metrics
        self.observers = observers or None
        self.early = [one for one in observers or () if one.looks_early] or None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on with its `Exchange`, and add request ID and receipt to its answer."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        exchange = open_exchange(scope, send)
        if self.early is not None:
            begin_all(self.early, exchange, scope)

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
            self.metrics.record_answer(exchange)
            if self.observers is not None:
                end_all(self.observers, exchange)


def open_exchange(scope: Scope, send: Send) -> Exchange:
    """Create the state of a new request (its `Exchange`), and store it in the ASGI scope."""
    headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
    theirs = headers.get(b"x-request-id", "")
    own = theirs if _SANE_ID.fullmatch(theirs) else uuid.uuid4().hex
    client: tuple[str, int] | None = scope.get("client")
    exchange = scope[EXCHANGE] = Exchange(
        own,
        headers,
        method=scope.get("method", ""),
        address=client[0] if client else "",
        send=send,
        answer_id=uuid.uuid4().hex,
    )
    return exchange


class Errors:
    """Turns exceptions into error replies. An unexpected exception is logged, and its client gets a 500
    without details.
    """

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer an exception with an error reply."""
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
            scope[EXCHANGE].status = CLIENT_CLOSED
        except Exception as error:
            if started:
                raise
            reply = reply_for(error)
            exchange: Exchange = scope[EXCHANGE]
            exchange.error = reply.code or "error"
            metrics = self.metrics.of(exchange)
            metrics.rejected.labels(exchange.error).inc()
            if isinstance(error, EngineBusyError):
                metrics.gates.labels(error.gate).inc()
            await _send_error(reply, error, scope, send)


async def _send_error(reply: ErrorReply, error: Exception, scope: Scope, send: Send) -> None:
    if reply.status >= 500 and reply.code == "internal_error":
        log.error(
            "request %s failed with an unexpected error; its client gets the error internal_error",
            scope[EXCHANGE].request_id,
            exc_info=error,
        )
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
        """Pass a request on. Raises `ApiError` (431) if its headers are too many or too large."""
        if scope["type"] == "http":
            headers = scope["headers"]
            size = sum(len(name) + len(value) for name, value in headers)
            if len(headers) > MAX_HEADERS or size > MAX_HEADER_BYTES:
                raise ApiError(
                    ErrorReply(
                        431,
                        f"The request's headers are too large; send at most {MAX_HEADERS} with "
                        f"{MAX_HEADER_BYTES} bytes in all.",
                        code="headers_too_large",
                    )
                )
        await self.app(scope, receive, send)


def is_keyless(path: str) -> bool:
    """True if `path` needs no key."""
    return path in KEYLESS_PATHS or path == PAGE or path.startswith(PAGE_PREFIX)


def is_admin_path(path: str) -> bool:
    """True if `path` needs an admin key."""
    return path in ADMIN_PATHS or path == ADMIN_PREFIX or path.startswith(ADMIN_PREFIX + "/")


@dataclass(frozen=True, slots=True)
class Presented:
    """Which of the server's keys a request presents, if any."""

    given: bool
    """True if the request has a key, valid or not."""
    ordinary: bool
    admin: bool
    metrics: bool
    tenant: str
    """First 32 hexadecimal digits of the presented key's SHA-256, which stand for the client."""

    @property
    def ours(self) -> bool:
        """True if the key is one of the server's API keys, admin keys or metrics keys."""
        return self.ordinary or self.admin or self.metrics


class ApiKeys:
    """Requires one of the server's keys as a bearer token. Without configured keys, every request passes.

    Admin paths (`is_admin_path`) need an admin key, and are disabled if none is configured. An admin key also
    gives access to everything else. `METRICS_PATHS` need a metrics key or an admin key, because they show all
    tenants, unless neither API keys nor metrics keys are configured. A metrics key gives access to nothing
    else.
    """

    def __init__(
        self,
        app: ASGIApp,
        keys: Sequence[str],
        admin_keys: Sequence[str] = (),
        metrics_keys: Sequence[str] = (),
        wrong: WrongKeys | None = None,
    ) -> None:
        self.app = app
        self.digests = [_digest(key) for key in keys]
        self.admin_digests = [_digest(key) for key in admin_keys]
        self.metrics_digests = [_digest(key) for key in metrics_keys]
        self.wrong = wrong or WrongKeys()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request. Raises `ApiError`: 401 without a valid key, 403 for a key without access to the
        path, 429 after many wrong keys.
        """
        if scope["type"] == "http":
            exchange: Exchange = scope[EXCHANGE]
            found = self._identify(exchange.headers.get(b"authorization", ""))
            known = found.ordinary or found.admin
            exchange.tenant = found.tenant if known else ""
            exchange.authenticated = exchange.trusted and (known or not self.digests)
            if is_admin_path(scope["path"]):
                self._require_admin(found, exchange)
            elif scope["path"] in METRICS_PATHS:
                self._require_metrics(found, exchange)
            elif not known and self.digests and not is_keyless(scope["path"]):
                raise self._refusal(found, exchange, "API key")
        await self.app(scope, receive, send)

    def _require_metrics(self, found: Presented, exchange: Exchange) -> None:
        if found.admin or found.metrics or not (self.digests or self.metrics_digests):
            return
        if not found.ordinary:
            raise self._refusal(found, exchange, "metrics key")
        raise ApiError(
            ErrorReply(
                403,
                "This API key does not have access to /metrics; "
                "send one of the server's metrics_keys or admin_keys.",
                type="permission_error",
                code="metrics_key_needed",
            )
        )

    def _require_admin(self, found: Presented, exchange: Exchange) -> None:
        if found.admin:
            return
        known = found.ordinary or found.metrics
        if not known and (self.digests or self.admin_digests):
            raise self._refusal(found, exchange, "admin key")
        raise ApiError(
            ErrorReply(
                403,
                "This API key does not have admin access; send one of the server's admin_keys."
                if self.admin_digests
                else "The /admin endpoints are disabled; set admin_keys on the server, and send one of them.",
                type="permission_error",
                code="admin_key_needed",
            )
        )

    def _refusal(self, found: Presented, exchange: Exchange, needed: str) -> ApiError:
        """Return the error for a missing or wrong key: 401, or 429 for a wrong key after too many others."""
        wait = self.wrong.record(exchange.address) if found.given and not found.ours else 0
        if not wait:
            return _unauthorized(
                f"The {needed} of the request is missing or invalid; send the header Authorization: Bearer "
                "KEY."
            )
        reply = ErrorReply(
            429,
            f"This address sent too many wrong keys. Retry in {wait} seconds; a valid key works at any time.",
            type="rate_limit_error",
            code="too_many_wrong_keys",
            headers={"Retry-After": str(wait)},
        )
        return ApiError(reply)

    def _identify(self, authorization: str) -> Presented:
        """Compare the key in the header `Authorization` with all configured keys. Return of which kinds it
        is: API key, admin key or metrics key.
        """
        scheme, _, key = authorization.partition(" ")
        presented = hashlib.sha256(key.strip().encode("latin-1")).digest()
        bearer = scheme.lower() == "bearer"
        ordinary, admin, metrics = (
            bearer and _is_among(presented, digests)
            for digests in (self.digests, self.admin_digests, self.metrics_digests)
        )
        return Presented(bearer and bool(key.strip()), ordinary, admin, metrics, presented.hex()[:32])


def _is_among(presented: bytes, digests: Sequence[bytes]) -> bool:
    # Every key is compared, so that the time says nothing of which one matched.
    matches = [hmac.compare_digest(presented, known) for known in digests]
    return any(matches)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def _unauthorized(message: str) -> ApiError:
    headers = {"WWW-Authenticate": "Bearer"}
    return ApiError(ErrorReply(401, message, code="invalid_api_key", headers=headers))
