"""What one connection may send and how long it may take; a test fails for each of these that is not kept."""

from __future__ import annotations

from server.asgi.http import replies
from server.asgi.middleware import MAX_HEADER_BYTES
from server.errors import ErrorReply

HEADER_SECONDS = 10.0
"""A connection whose first or next request's head is not whole after this long is closed."""

BEYOND_SECONDS = 2.0
"""The same on a connection beyond the limit."""

REST_SECONDS = 5.0
"""How long the rest of a body may take that comes after the answer."""

MAX_HEAD_BYTES = 2 * MAX_HEADER_BYTES
"""Request line and headers, with what separates them, before they are read as headers."""

MAX_FRAMING_BYTES = 64 * 1024
"""Chunk sizes, extensions and trailers of a body, beside eight bytes for each byte of content."""

MAX_URL_BYTES = 8 * 1024

MAX_PIPELINED = 32
"""Requests of one connection that wait for the answers before theirs."""

UNREAD_HEAD = 1024 * 1024
UNREAD_BODY = 32 * 1024 * 1024
"""Bytes after a refused head, or of a refused body, that are read so that the client sees the answer."""


class Overhead:
    """Measures what comes of a request and is not content."""

    def __init__(self) -> None:
        self._head = 0
        self._framing = 0

    def reset(self) -> None:
        """Another request begins."""
        self._head = self._framing = 0

    def check_head(self, size: int, url: bytes) -> ErrorReply | None:
        """The answer to a head of which `size` more bytes have come, if it is too large."""
        self._head += size
        if len(url) > MAX_URL_BYTES:
            return replies.url_too_long(MAX_URL_BYTES)
        return replies.head_too_large(MAX_HEAD_BYTES) if self._head > MAX_HEAD_BYTES else None

    def check_framing(self, size: int, content: int) -> ErrorReply | None:
        """The answer to a body of `content` bytes so far, around which `size` more have come, if too many."""
        self._framing += size
        # The smallest chunk has five bytes around one of content.
        too_much = self._framing > MAX_FRAMING_BYTES + 8 * content
        return replies.framing_too_large(MAX_FRAMING_BYTES) if too_much else None
