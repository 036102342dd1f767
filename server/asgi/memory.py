"""Gives memory that is free back to the system, which glibc keeps after a burst of large requests."""

from __future__ import annotations

import asyncio
import ctypes
import sys
from collections.abc import Callable
from contextlib import suppress

import psutil

GROWTH = 8 * 1024 * 1024
"""Bytes by which the process grows before a look whether some are free."""
AGAIN = (5, 20, 60)
"""Looks after a growth at which what has become free since is given back too."""


class Trimmer:
    """`await trimmer.look()` now and then: after a growth of `GROWTH` what is free is given back, and again
    later, since what a burst took may be held until its slowest client has gone.

    It does nothing where the C library is not glibc.
    """

    def __init__(self) -> None:
        self._trim = _malloc_trim()
        self._process = psutil.Process()
        self._last = 0
        self._since = AGAIN[-1]
        """Looks since it has grown."""
        self._low = self._rss()

    async def look(self) -> None:
        """Give back what is free if the process has grown."""
        self._since += 1
        if self._rss() > self._low + GROWTH:
            self._since = 0
        if self._trim is not None and self._since in (0, *AGAIN):
            # Many milliseconds after a burst of gigabytes.
            await asyncio.to_thread(self._trim, 0)
        self._low = min(self._low + GROWTH, self._rss())

    def _rss(self) -> int:
        """Bytes in memory; if the system says nothing, as without a free file descriptor, those of before."""
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
