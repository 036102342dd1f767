"""A transport that closes a connection only after its client could read the answer, and disconnects clients
that do not read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Protocol

LINGER_SECONDS = 5.0
"""Seconds for which a closing connection reads and drops what its client still sends."""

WRITE_SECONDS = 30.0
"""Seconds after which a client that has not read any of its answer is disconnected."""

INTERIM = b"HTTP/1.1 1"
"""How a head begins that is not the answer's own, such as that of `100 Continue`."""

log = logging.getLogger("oneseek.server")


class _Write(Protocol):
    def __call__(self, data: bytes | bytearray | memoryview) -> None: ...


class LingeringTransport(asyncio.Transport):
    """Passes all calls on to the transport `inner`, with two exceptions: `close` lingers if the client may
    still send, and the head of an answer is sent together with the beginning of its body.

    Closing a connection with unread data resets it, and the client then loses the answer. Lingering closes
    only the sending direction, then reads and drops what the client sends (RFC 9112, section 9.6), for at
    most `LINGER_SECONDS` and at most as many bytes as `unread` returns.

    uvicorn writes head and body apart. Each write is a system call that also wakes the client, so two cost
    nearly twice as much as one.
    """

    write_seconds = WRITE_SECONDS

    def __init__(
        self, inner: asyncio.Transport, loop: asyncio.AbstractEventLoop, unread: Callable[[], int]
    ) -> None:
        super().__init__()
        self._inner = inner
        self._loop = loop
        self._unread = unread
        self._held = False
        self._written = 0
        """Number of bytes written since `watch_writes` was called."""
        # Each token of each stream is a call: nothing is counted before.
        self._send: _Write = inner.write
        """Function that sends data: `inner.write`, or `_write_counted` since `watch_writes` was called."""
        self.write = self._send
        self._head = b""
        """Head of an answer that waits for the beginning of its body; empty if there is none."""
        self._left = 0
        """Number of bytes that may still be read and dropped while the connection lingers."""
        self._linger_timer: asyncio.TimerHandle | None = None
        self._write_timer: asyncio.TimerHandle | None = None

    @property
    def is_lingering(self) -> bool:
        """True while the connection lingers: the answer has been sent, and further input is dropped."""
        return self._linger_timer is not None

    def expect_head(self) -> None:
        """Hold back the next head that is written, until the beginning of its body is written or the answer
        is complete.
        """
        if not self.is_lingering:
            self.write = self._write_head

    def drop(self, data: bytes) -> None:
        """Count bytes that were received while lingering, and close the connection if there are too many."""
        self._left -= len(data)
        if self._left < 0:
            self.finish()

    def close(self) -> None:
        """Close after pending data is sent, and read and drop further input."""
        if self.is_closing():
            return
        self._send_head()
        self._left = self._unread()
        if not self._left or not self._inner.can_write_eof():
            self.finish()
            return
        self._held = False
        self.write = self._write_nothing
        self._linger_timer = self._loop.call_later(LINGER_SECONDS, self.finish)
        self._inner.write_eof()
        self._inner.resume_reading()

    def finish(self) -> None:
        """Close after pending data is sent, without lingering."""
        if self._linger_timer is not None:
            self._linger_timer.cancel()
        self.watch_writes()
        self._inner.close()

    def abort(self) -> None:
        """Close at once and drop pending data."""
        self.forget()
        self._inner.abort()

    def forget(self) -> None:
        """Called when the connection is closed: stop all timers, and drop a head that was held back."""
        self._head = b""
        for timer in (self._linger_timer, self._write_timer):
            if timer is not None:
                timer.cancel()

    def watch_writes(self) -> None:
        """Disconnect the client if it reads nothing of the pending data for `write_seconds`."""
        self._send_head()
        unsent = self._inner.get_write_buffer_size()
        if self._write_timer is None and unsent:
            if self.write is self._send:
                self.write = self._write_counted
            self._send = self._write_counted
            sent = self._written - unsent
            self._write_timer = self._loop.call_later(self.write_seconds, self._check_writes, sent)

    def _check_writes(self, sent: int) -> None:
        self._write_timer = None
        unsent = self._inner.get_write_buffer_size()
        if unsent and self._written - unsent == sent:
            log.info(
                "a connection is closed and the rest of its answer is lost, because its client has read "
                "nothing for %g seconds",
                self.write_seconds,
            )
            self.abort()
        else:
            self.watch_writes()

    def is_closing(self) -> bool:
        """True if no more data can be written."""
        return self.is_lingering or self._inner.is_closing()

    def _write_counted(self, data: bytes | bytearray | memoryview) -> None:
        """Write `data` and count it."""
        self._written += len(data)
        self._inner.write(data)

    def _write_head(self, data: bytes | bytearray | memoryview) -> None:
        """Hold back the head `data`."""
        if data[: len(INTERIM)] == INTERIM:
            self._send(data)
            return
        self._head = bytes(data)
        self.write = self._write_with_head

    def _write_with_head(self, data: bytes | bytearray | memoryview) -> None:
        """Write the head that was held back, and `data`."""
        head, self._head = self._head, b""
        self.write = self._send
        self._send(head + data)

    def _send_head(self) -> None:
        """Write the head that was held back, if there is one."""
        if self._head:
            self._write_with_head(b"")

    def _write_nothing(self, data: bytes | bytearray | memoryview) -> None:
        """Drop the data, because the answer has ended."""

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        """Return information about the connection, such as the client's address. See
        `asyncio.BaseTransport`.
        """
        return self._inner.get_extra_info(name, default)

    def pause_reading(self) -> None:
        """Stop reading from the client, unless the connection is about to close. See
        `asyncio.ReadTransport`.
        """
        if not self.is_lingering:
            self._inner.pause_reading()

    def resume_reading(self) -> None:
        """Read from the client again, unless `hold_reading` has paused reading. See
        `asyncio.ReadTransport`.
        """
        if not self._held:
            self._inner.resume_reading()

    def hold_reading(self, held: bool) -> None:
        """Pause reading until this is called with False, even if other code calls `resume_reading` before."""
        if held and not self._held:
            self.pause_reading()
        if self._held and not held:
            self._inner.resume_reading()
        self._held = held
