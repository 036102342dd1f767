"""Makes the startup interruptible: SIGTERM and Ctrl-C stop it within `FORCE_SECONDS`, with exit code 0.

Imports only light modules, because `oneseek serve` imports this module first.
"""

from __future__ import annotations

import os
import signal
import socket
import threading
import time
from contextlib import suppress
from types import FrameType, TracebackType
from typing import Any, Self

import psutil

from adapters.files.atomic import discard_unfinished

FORCE_SECONDS = 1.5
"""Seconds that the startup has to stop after a signal; after that the process exits at once."""

SIGNALS = [getattr(signal, name) for name in ("SIGINT", "SIGTERM", "SIGBREAK") if hasattr(signal, name)]


def end_now() -> None:
    """Exit at once with code 0, leaving no child process and no half-written file."""
    kill_children()
    discard_unfinished()
    os._exit(0)


def kill_children() -> None:
    """Kill all child processes and their children."""
    with suppress(psutil.Error, OSError):
        for child in psutil.Process().children(recursive=True):
            with suppress(psutil.Error, OSError):
                child.kill()


def end_after(seconds: float) -> None:
    """Exit the process after `seconds` (see `end_now`), unless it has ended before."""
    timer = threading.Timer(seconds, end_now)
    timer.daemon = True
    timer.start()


class StartGuard:
    """A context manager that ends its block if SIGINT or SIGTERM arrives, without raising.

    If the block is in native code and does not end in time, another thread ends the process. Call
    `guard.hand_over` before an event loop handles the signals.
    """

    def __enter__(self) -> Self:
        self.stopped = False
        """True if a signal has arrived."""
        self._previous: dict[signal.Signals, Any] = {}
        if threading.current_thread() is not threading.main_thread():
            return self
        # The interpreter writes here at once, also while its main thread is in foreign code.
        ours, self._theirs = socket.socketpair()
        self._theirs.setblocking(False)
        self._wakeup = signal.set_wakeup_fd(self._theirs.fileno(), warn_on_full_buffer=False)
        threading.Thread(target=_end_late, args=(ours,), daemon=True, name="oneseek-start").start()
        self._previous = {number: signal.signal(number, self.stop) for number in SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        self.hand_over()
        for number, handler in self._previous.items():
            # After the first signal the process ends with 0; another one must not change that.
            signal.signal(number, signal.SIG_IGN if self.stopped else handler)
        if self.stopped:
            kill_children()
        # Foreign code turns `SystemExit` into errors of its own.
        return self.stopped

    def hand_over(self) -> None:
        """Stop watching for signals, since the event loop handles them from now on. Idempotent."""
        if self._previous and self._wakeup is not None:
            signal.set_wakeup_fd(self._wakeup)
            self._wakeup = None
            self._theirs.close()

    def stop(self, _signal: int, _frame: FrameType | None) -> None:
        """Signal handler: interrupt the main thread, so that the startup ends."""
        self.stopped = True
        raise SystemExit(0)


def _end_late(signals: socket.socket) -> None:
    with signals:
        if signals.recv(1):  # nothing: the start is over
            time.sleep(FORCE_SECONDS)
            end_now()
