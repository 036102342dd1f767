"""What a connection answers by itself, before an endpoint is asked."""

from __future__ import annotations

from server.api.rendering.error_replies import NOT_READY_RETRY
from server.errors import ErrorReply

BUSY_RETRY = 1
"""Seconds that a client is asked to wait for a connection or for room for its body."""

_CLOSE = {"Connection": "close"}


def _busy(code: str, message: str, seconds: int = BUSY_RETRY) -> ErrorReply:
    headers = {"Retry-After": str(seconds)} | _CLOSE
    return ErrorReply(503, message, type="server_error", code=code, headers=headers)


MALFORMED = ErrorReply(400, "The request is not valid HTTP/1.1.", code="malformed_request", headers=_CLOSE)
NO_TUNNELS = ErrorReply(
    405, "This server opens no tunnels: CONNECT is not served.", code="method_not_allowed", headers=_CLOSE
)
BODY_TOO_LATE = ErrorReply(408, "The body did not arrive in time.", code="request_timeout", headers=_CLOSE)
TOO_MANY_AT_ONCE = ErrorReply(
    400,
    "Too many requests were sent on this connection before their answers. Wait for an answer first.",
    code="too_many_pipelined",
    headers=_CLOSE,
)
TOO_MANY_CONNECTIONS = _busy(
    "too_many_connections", "The server has as many connections as max_connections allows. Retry shortly."
)
NO_ROOM_FOR_BODY = _busy(
    "too_many_bodies", "The bodies of other requests fill max_bodies_memory. Retry shortly."
)
SHUTTING_DOWN = _busy("shutting_down", "The server is shutting down. Retry shortly.", NOT_READY_RETRY)


def url_too_long(limit: int) -> ErrorReply:
    """A request whose URL exceeds `limit` bytes."""
    return ErrorReply(414, f"The URL is longer than {limit} bytes.", code="uri_too_long", headers=_CLOSE)


def head_too_large(limit: int) -> ErrorReply:
    """A head that exceeds `limit` bytes and has not ended."""
    message = f"The request line and headers are larger than {limit} bytes."
    return ErrorReply(431, message, code="headers_too_large", headers=_CLOSE)


def framing_too_large(limit: int) -> ErrorReply:
    """A chunked body whose chunk extensions or trailers exceed `limit` bytes."""
    message = f"Chunk sizes, extensions and trailers are larger than {limit} bytes. Send larger chunks."
    return ErrorReply(431, message, code="trailers_too_large", headers=_CLOSE)
