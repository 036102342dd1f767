"""Gives memory back to the operating system that glibc would keep after a burst of large requests."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

GROWTH = 8 * 1024 * 1024
"""Growth of the process's memory, in bytes, after which free memory is given back."""
AGAIN = (5, 20, 60)
"""Numbers of checks after a growth at which memory is given back again, because more has become free."""


class Trimmer:
    """Gives free memory back to the operating system when the process has grown by `GROWTH` bytes.

    Call `await trimmer.look()` regularly. Memory is given back again after some more checks (`AGAIN`),
    because a burst's memory may be in use until its slowest client has gone. Without glibc, nothing happens.
    """

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._process = psutil.Process()
        self._last = 0
        self._since = AGAIN[-1]
        """Number of checks since the process's memory last grew by `GROWTH` bytes."""
        self._low = self._rss()

    async def look(self) -> None:
        """Check the process's memory, and give free memory back to the operating system if it has grown."""
        self._since += 1
        if self._rss() > self._low + GROWTH:
            self._since = 0
        if self._trim is not None and self._since in (0, *AGAIN):
            # Many milliseconds after a burst of gigabytes.
            await asyncio.to_thread(self._trim, 0)
        self._low = min(self._low + GROWTH, self._rss())

    def _rss(self) -> int:
        """Return the process's resident memory in bytes; the previous value if it cannot be read, such as
        when no file descriptor is free.
        """
        with suppress(OSError, psutil.Error):
            self._last = self._process.memory_info().rss
        return self._last


def _malloc_trim() -> Callable[[int], int] | None:
    if sys.platform != "linux":
        return None
    try:
        return ctypes.CDLL(None).malloc_trim
    except AttributeError:  # musl
        return None
