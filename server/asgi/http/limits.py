"""Limits on what a client may send over one connection, and on how long that may take. Each limit is
tested.
"""

from __future__ import annotations

from server.asgi.http import replies
from server.asgi.middleware import MAX_HEADER_BYTES
from server.errors import ErrorReply

HEADER_SECONDS = 10.0
"""Seconds within which a request head must arrive, counted from the connection's start or the previous
answer.
"""

BEYOND_SECONDS = 2.0
"""Seconds within which a request head must arrive if there are more than `max_connections` connections."""

REST_SECONDS = 5.0
"""Seconds within which a request's remaining body must arrive after the request was answered."""

MAX_HEAD_BYTES = 2 * MAX_HEADER_BYTES
"""Maximum size in bytes of request line and headers, including separators."""

MAX_FRAMING_BYTES = 64 * 1024
"""Maximum bytes of a chunked body's framing (chunk sizes, extensions, trailers). For each byte of content,
eight more bytes of framing are allowed.
"""

MAX_URL_BYTES = 8 * 1024

MAX_PIPELINED = 32
"""Maximum number of pipelined requests that wait on one connection."""

UNREAD_HEAD = 1024 * 1024
UNREAD_BODY = 32 * 1024 * 1024
"""Maximum bytes to read and drop after a refused body (`UNREAD_HEAD`: after a refused head), so that the
client can read the answer.
"""


class Overhead:
    """Measures bytes of a request that are not content: head, chunk framing and trailers."""

    def __init__(self) -> None:
        self._head = 0
        self._framing = 0

    def reset(self) -> None:
        """Start measuring the next request."""
        self._head = self._framing = 0

    def check_head(self, size: int, url: bytes) -> ErrorReply | None:
        """Count `size` more bytes of the head. Returns an error reply if the head is too large, else None."""
        self._head += size
        if len(url) > MAX_URL_BYTES:
            return replies.url_too_long(MAX_URL_BYTES)
        return replies.head_too_large(MAX_HEAD_BYTES) if self._head > MAX_HEAD_BYTES else None

    def check_framing(self, size: int, content: int) -> ErrorReply | None:
        """Count `size` more framing bytes around `content` bytes. Returns an error reply if there are too
        many.
        """
        self._framing += size
        # The smallest chunk has five bytes around one of content.
        too_much = self._framing > MAX_FRAMING_BYTES + 8 * content
        return replies.framing_too_large(MAX_FRAMING_BYTES) if too_much else None
