"""The layers around every endpoint, pure ASGI: `Receipts`, `Errors`, `HeaderLimits`, `ApiKeys`.

Decisions are made on `scope["path"]`, the path that is routed on, never on what a Host header shapes.
"""

from __future__ import annotations

import asyncio
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
from server.asgi.pace import RefusalPace
from server.asgi.wrong_keys import WrongKeys
from server.errors import ApiError, EngineBusyError, ErrorReply
from server.exchange import EXCHANGE, Exchange
from server.metrics.metrics import Metrics

log = logging.getLogger("oneseek.api")

OPEN_PATHS = frozenset({"/live", "/ready", "/health", "/ping"})
"""What answers without a key: probes cannot carry one. `/health` then says no more than its status."""

KEYLESS_PATHS = OPEN_PATHS | {"/openapi.json", "/docs"}
"""Also what describes the interface and nothing of this server: an address bar carries no key."""

METRICS_PATH = "/metrics"
ADMIN_PREFIX = "/admin"
ADMIN_PATHS = frozenset({"/v1/load_lora_adapter", "/v1/unload_lora_adapter"})
"""What needs an admin key, with everything at and below `ADMIN_PREFIX`, be it an endpoint or not."""

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024

_SANE_ID = re.compile(r"[A-Za-z0-9._:/+=@-]{1,128}")

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
            self.metrics.record_answer(exchange)


def open_exchange(scope: Scope, send: Send) -> Exchange:
    """Put the exchange of a request that has just arrived, and is answered through `send`, into its scope."""
    headers = {name: value.decode("latin-1") for name, value in reversed(scope["headers"])}
    theirs = headers.get(b"x-request-id", "")
    own = theirs if _SANE_ID.fullmatch(theirs) else uuid.uuid4().hex
    exchange = scope[EXCHANGE] = Exchange(own, headers, send=send, answer_id=uuid.uuid4().hex)
    return exchange


class Errors:
    """Answers what an endpoint raised; an unexpected error is logged, and its client told nothing of it."""

    def __init__(self, app: ASGIApp, metrics: Metrics) -> None:
        self.app = app
        self.metrics = metrics
        self.pace = RefusalPace()

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
            scope[EXCHANGE].status = CLIENT_CLOSED
        except Exception as error:
            if started:
                raise
            reply = reply_for(error)
            metrics = self.metrics.of(scope[EXCHANGE])
            metrics.rejected.labels(reply.code or "error").inc()
            if isinstance(error, EngineBusyError):
                metrics.gates.labels(error.gate).inc()
                exchange: Exchange = scope[EXCHANGE]
                held = self.pace.delay(exchange.tenant or _address(scope), exchange.adapter)
                if held:
                    await asyncio.sleep(held)
            await _send_error(reply, error, scope, send)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else ""


async def _send_error(reply: ErrorReply, error: Exception, scope: Scope, send: Send) -> None:
    if reply.status >= 500 and reply.code == "internal_error":
        log.error("request %s failed", scope[EXCHANGE].request_id, exc_info=error)
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


def is_admin_path(path: str) -> bool:
    """Whether `path` needs an admin key."""
    return path in ADMIN_PATHS or path == ADMIN_PREFIX or path.startswith(ADMIN_PREFIX + "/")


@dataclass(frozen=True, slots=True)
class Presented:
    """What a request's key is."""

    given: bool
    """Whether there is any."""
    ordinary: bool
    admin: bool
    metrics: bool
    tenant: str
    """Its digest."""

    @property
    def ours(self) -> bool:
        """Whether it is a key of any kind."""
        return self.ordinary or self.admin or self.metrics


class ApiKeys:
    """Lets a request pass with one of the keys as a bearer token; without keys, lets everything pass.

    What `is_admin_path` says needs one of the admin keys, and without any is closed to all. An admin key
    opens everything else too. `METRICS_PATH` tells of all tenants: if there are `keys`, none of them opens
    it, but a metrics key or an admin key does. A metrics key opens nothing else.
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
        """Serve one request, or raise `ApiError` (401, 403, 429)."""
        if scope["type"] == "http":
            exchange: Exchange = scope[EXCHANGE]
            found = self._identify(exchange.headers.get(b"authorization", ""))
            known = found.ordinary or found.admin
            exchange.tenant = found.tenant if known else ""
            exchange.authenticated = exchange.trusted and (known or not self.digests)
            if is_admin_path(scope["path"]):
                self._require_admin(found, scope)
            elif scope["path"] == METRICS_PATH:
                self._require_metrics(found, scope)
            elif not known and self.digests and scope["path"] not in KEYLESS_PATHS:
                raise self._refusal(found, scope, "API key")
        await self.app(scope, receive, send)

    def _require_metrics(self, found: Presented, scope: Scope) -> None:
        if found.admin or found.metrics or not (self.digests or self.metrics_digests):
            return
        if not found.ordinary:
            raise self._refusal(found, scope, "metrics key")
        message = "This key does not open /metrics; present one of the server's metrics_keys or admin_keys."
        raise ApiError(ErrorReply(403, message, type="permission_error", code="metrics_key_needed"))

    def _require_admin(self, found: Presented, scope: Scope) -> None:
        if found.admin:
            return
        known = found.ordinary or found.metrics
        if not known and (self.digests or self.admin_digests):
            raise self._refusal(found, scope, "admin key")
        message = (
            "This key opens no admin endpoint; present one of the server's admin_keys."
            if self.admin_digests
            else "Admin endpoints are closed: set admin_keys on the server, and present one of them."
        )
        raise ApiError(ErrorReply(403, message, type="permission_error", code="admin_key_needed"))

    def _refusal(self, found: Presented, scope: Scope, needed: str) -> ApiError:
        """401 for no key; for a wrong one too, unless too many came before it."""
        wait = self.wrong.record(_address(scope)) if found.given and not found.ours else 0
        if not wait:
            return _unauthorized(f"A valid {needed} is needed: Authorization: Bearer KEY.")
        reply = ErrorReply(
            429,
            f"Too many wrong keys. A right one is taken at once; try another in {wait} seconds.",
            type="rate_limit_error",
            code="too_many_wrong_keys",
            headers={"Retry-After": str(wait)},
        )
        return ApiError(reply)

    def _identify(self, authorization: str) -> Presented:
        """Which of our keys the one that is presented is."""
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
