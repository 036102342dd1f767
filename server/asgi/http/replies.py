"""Error replies that a connection sends by itself, before a request reaches an endpoint."""

from __future__ import annotations

from server.api.rendering.error_replies import NOT_READY_RETRY
from server.errors import ErrorReply

BUSY_RETRY = 1
"""Value of `Retry-After` in seconds if there are too many connections or the memory for bodies is full."""

_CLOSE = {"Connection": "close"}


def _busy(code: str, message: str, seconds: int = BUSY_RETRY) -> ErrorReply:
    headers = {"Retry-After": str(seconds)} | _CLOSE
    return ErrorReply(503, message, type="server_error", code=code, headers=headers)


MALFORMED = ErrorReply(
    400,
    "The request is not valid HTTP/1.1; send a valid request on a new connection.",
    code="malformed_request",
    headers=_CLOSE,
)
NO_TUNNELS = ErrorReply(
    405,
    "The method CONNECT is not supported: this server is not a proxy.",
    code="method_not_allowed",
    headers=_CLOSE,
)
UNKNOWN_CODING = ErrorReply(
    501,
    "The Transfer-Encoding of the request is not supported: the only one is chunked. Send the body "
    "uncompressed, in chunks or with a Content-Length.",
    code="unsupported_transfer_encoding",
    headers=_CLOSE,
)
BODY_TOO_LATE = ErrorReply(
    408,
    "The body of the request did not arrive in time. Send the request again.",
    code="request_timeout",
    headers=_CLOSE,
)
TOO_MANY_AT_ONCE = ErrorReply(
    400,
    "This connection has too many pipelined requests. Wait for an answer before you send the next request.",
    code="too_many_pipelined",
    headers=_CLOSE,
)
TOO_MANY_CONNECTIONS = _busy(
    "too_many_connections",
    "The server has reached its maximum number of connections (max_connections). Retry shortly.",
)
NO_ROOM_FOR_BODY = _busy(
    "too_many_bodies", "The server's memory for request bodies (max_bodies_memory) is full. Retry shortly."
)
SHUTTING_DOWN = _busy("shutting_down", "The server is shutting down. Retry shortly.", NOT_READY_RETRY)


def url_too_long(limit: int) -> ErrorReply:
    """Return the error reply to a request whose URL exceeds `limit` bytes."""
    return ErrorReply(
        414, f"The URL is longer than {limit} bytes. Send a shorter URL.", code="uri_too_long", headers=_CLOSE
    )


def head_too_large(limit: int) -> ErrorReply:
    """Return the error reply to a request whose head exceeds `limit` bytes."""
    message = (
        f"The request line and headers are larger than {limit} bytes together. Send fewer or shorter headers."
    )
    return ErrorReply(431, message, code="headers_too_large", headers=_CLOSE)


def framing_too_large(limit: int) -> ErrorReply:
    """Return the error reply to a chunked body whose framing or trailers exceed `limit` bytes."""
    message = (
        f"The chunk headers and trailers of the request's body are larger than {limit} bytes. "
        "Send fewer and larger chunks."
    )
    return ErrorReply(431, message, code="trailers_too_large", headers=_CLOSE)
