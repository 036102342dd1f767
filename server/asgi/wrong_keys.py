"""Limits how often clients can try wrong API keys: 401 at first, then 429, so that guessing is slow and
visible.
"""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 1024
"""Maximum number of client addresses with wrong keys to remember; the one that failed longest ago is
dropped.
"""
BURST, PER_SECOND = 32, 0.2
"""Wrong keys that one address may send at once, and how many more per second."""
BURST_IN_ALL, PER_SECOND_IN_ALL = 200, 10.0


class Bucket:
    """A token bucket: allows `burst` events at once, then `rate` events per second."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst, self._rate = burst, rate
        self._left, self._at = float(burst), now

    def take(self, now: float) -> float:
        """Take a token. Returns 0, or the seconds to wait until one is available."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class WrongKeys:
    """Counts wrong API keys per address and in total. A valid key is never counted and always passes.

    No address is ever blocked completely, because a customer and an attacker may share it.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = Bucket(BURST_IN_ALL, PER_SECOND_IN_ALL, clock())
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()

    def record(self, address: str) -> int:
        """Count a wrong key from `address`. Returns 0, or the whole seconds to wait before the next
        attempt.
        """
        now = self._clock()
        bucket = self._addresses.pop(address, None) or Bucket(BURST, PER_SECOND, now)
        self._addresses[address] = bucket
        if len(self._addresses) > MOST:
            self._addresses.popitem(last=False)
        return math.ceil(bucket.take(now) or self._all.take(now))
