"""Bounds on a connection before there is a request: uvicorn has none for the size and the time of headers."""

from __future__ import annotations

import asyncio

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from server.asgi.middleware import MAX_HEADER_BYTES

HEADER_SECONDS = 10.0
"""A connection whose first or next request's head is not whole after this long is closed."""

MAX_HEAD_BYTES = 2 * MAX_HEADER_BYTES
"""Request line and headers, with what separates them, before they are read as headers."""


class BoundedProtocol(HttpToolsProtocol):
    """uvicorn's httptools protocol with a limit on how long and how large the head of a request may be."""

    header_seconds = HEADER_SECONDS

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Begin to wait for the first request."""
        super().connection_made(transport)
        self._head_bytes = 0
        self._idle = False
        self._timer: asyncio.TimerHandle | None = None
        self._expect_head()

    def data_received(self, data: bytes) -> None:
        """Count what arrives until the head is whole; then the body's own bounds hold."""
        if self._idle and self._timer is None:
            self._idle = False
            self._expect_head()
        if self._timer is not None:
            self._head_bytes += len(data)
        super().data_received(data)
        if self._timer is not None and self._head_bytes > MAX_HEAD_BYTES:
            self._give_up()
            if not self.transport.is_closing():
                self.send_400_response("The request's head is too large.")

    def on_headers_complete(self) -> None:
        """The head is whole."""
        self._give_up()
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """What arrives next begins a new request."""
        self._idle = not self.pipeline
        super().on_response_complete()

    def connection_lost(self, exc: Exception | None) -> None:
        """Nothing more is waited for."""
        self._give_up()
        super().connection_lost(exc)

    def _expect_head(self) -> None:
        self._head_bytes = 0
        self._timer = self.loop.call_later(self.header_seconds, self._too_slow)

    def _give_up(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _too_slow(self) -> None:
        self._timer = None
        if not self.transport.is_closing():
            self.transport.close()
