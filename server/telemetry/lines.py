"""Writes lines to a file descriptor, without making callers wait for a slow reader."""

from __future__ import annotations

import errno
import os
import select
import sys
import threading
import time
from collections import deque
from collections.abc import Callable

MOST_BYTES = 8 * 1024 * 1024
"""Maximum bytes of lines that wait to be written. Further lines are dropped and counted."""
DIRECT_BYTES = 4096
"""Maximum bytes of a line that is written directly: a pipe that can be written to takes this much at once
(Linux's PIPE_BUF).
"""
CLOSE_SECONDS = 1.0
"""Maximum seconds that closing waits for a slow reader."""
_GONE = (errno.EPIPE, errno.EBADF, errno.EINVAL)

RenderLine = Callable[[], bytes]


class LineWriter:
    """Writes lines in a thread, which may wait for their reader; callers never wait. Thread-safe.

    With `direct`, a line is written at once if no other line waits and the descriptor accepts it, so that
    lines logged just before a crash are not lost.
    """

    def __init__(
        self,
        descriptor: int,
        *,
        direct: bool = False,
        dropped: Callable[[int], bytes] | None = None,
        most_bytes: int = MOST_BYTES,
    ) -> None:
        """`dropped` is called with the number of dropped lines, and returns the line to write in their
        place.
        """
        self._descriptor = descriptor
        self._direct = direct and sys.platform != "win32"
        self._dropped_line = dropped
        self._most = most_bytes
        self._waiting: deque[tuple[RenderLine | bytes, int]] = deque()
        self._pending = 0
        """Number of bytes that wait or are being written."""
        self._missing = 0
        self._gone = False
        self._closed = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self.dropped = 0
        """Number of dropped lines since the start."""

    def write(self, line: bytes) -> None:
        """Write `line`, which ends in a newline, at once or in the thread."""
        with self._changed:
            idle = self._direct and not self._pending and not self._missing
            if idle and len(line) <= DIRECT_BYTES and self._takes_more():
                self._put(line)
            else:
                self._queue(line, len(line))

    def write_later(self, render: RenderLine, size: int) -> None:
        """Write the line that `render` returns, called in the thread. `size` is about its length in bytes."""
        with self._changed:
            self._queue(render, size)

    def flush(self, seconds: float = CLOSE_SECONDS) -> bool:
        """Wait until everything is written, for at most `seconds`. Returns True if everything is."""
        end = time.monotonic() + seconds
        with self._changed:
            while self._pending and not self._gone:
                left = end - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
        return not self._gone

    def close(self, seconds: float = CLOSE_SECONDS) -> None:
        """Write the lines that wait, for at most `seconds`. Lines that are logged later are dropped.
        Idempotent.
        """
        with self._changed:
            self._waiting += self._note()
            self._changed.notify_all()
        self.flush(seconds)
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _queue(self, line: RenderLine | bytes, size: int) -> None:
        if self._closed or self._gone or self._pending + size > self._most:
            self.dropped += 1
            self._missing += 1
            return
        self._waiting += [*self._note(), (line, size)]
        self._pending += size
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="oneseek-log", daemon=True)
            self._thread.start()
        self._changed.notify_all()

    def _note(self) -> list[tuple[RenderLine | bytes, int]]:
        """Return the line that reports the number of lines dropped before this point; empty if none were
        dropped.
        """
        missing, self._missing = self._missing, 0
        return [(self._dropped_line(missing), 0)] if missing and self._dropped_line is not None else []

    def _run(self) -> None:
        while True:
            with self._changed:
                while not self._waiting and not self._closed:
                    self._changed.wait()
                if not self._waiting:
                    return
                line, size = self._waiting.popleft()
            self._put(line if isinstance(line, bytes) else _rendered(line))
            with self._changed:
                self._pending -= size
                self._changed.notify_all()

    def _put(self, data: bytes) -> None:
        left = memoryview(data)
        while left and not self._gone:
            try:
                left = left[os.write(self._descriptor, left) :]
            except BlockingIOError:  # somebody else made the descriptor so, for itself too
                select.select([], [self._descriptor], [])
            except OSError as error:
                self._gone = error.errno in _GONE
                self.dropped += 1
                return

    def _takes_more(self) -> bool:
        if not hasattr(select, "poll"):
            return False
        poll = select.poll()
        poll.register(self._descriptor, select.POLLOUT)
        return any(event & select.POLLOUT for _, event in poll.poll(0))


def _rendered(render: RenderLine) -> bytes:
    try:
        return render()
    except Exception as error:  # one line must not end the log
        return f"a log line could not be formatted, and is lost: {type(error).__name__}: {error}\n".encode()
