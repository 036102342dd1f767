"""Return free memory to the system. glibc keeps it after a burst of large requests."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

GROWTH = 8 * 1024 * 1024
"""Growth of the process in bytes after which free memory is returned."""
AGAIN = (5, 20, 60)
"""Number of further checks after a growth. They return memory that has become free since then."""


class Trimmer:
    """Returns free memory after a growth of `GROWTH` bytes. Call `await trimmer.look()` regularly. It repeats
    this later, because a burst's memory may be in use until its slowest client has gone.

    It does nothing if the C library is not glibc.
    """

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._process = psutil.Process()
        self._last = 0
        self._since = AGAIN[-1]
        """Number of checks since the last growth."""
        self._low = self._rss()

    async def look(self) -> None:
        """Return free memory if the process has grown."""
        self._since += 1
        if self._rss() > self._low + GROWTH:
            self._since = 0
        if self._trim is not None and self._since in (0, *AGAIN):
            # Many milliseconds after a burst of gigabytes.
            await asyncio.to_thread(self._trim, 0)
        self._low = min(self._low + GROWTH, self._rss())

    def _rss(self) -> int:
        """Resident memory in bytes; the previous value if it cannot be read, as without free file
        descriptors.
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
