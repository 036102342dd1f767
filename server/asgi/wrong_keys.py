"""How often wrong keys are answered with 401: then 429, so that guesses are slowed, counted and seen."""

from __future__ import annotations

import math
import time
from collections import OrderedDict
from collections.abc import Callable

MOST = 1024
"""Addresses that are remembered; the one that failed longest ago goes."""
BURST, PER_SECOND = 32, 0.2
"""Wrong keys of one address."""
BURST_IN_ALL, PER_SECOND_IN_ALL = 200, 10.0


class Bucket:
    """So many at once, and so many a second after that."""

    __slots__ = ("_at", "_burst", "_left", "_rate")

    def __init__(self, burst: int, rate: float, now: float) -> None:
        self._burst, self._rate = burst, rate
        self._left, self._at = float(burst), now

    def take(self, now: float) -> float:
        """Seconds to wait until there is one to take; 0 if one was taken."""
        self._left = min(self._burst, self._left + (now - self._at) * self._rate)
        self._at = now
        if self._left < 1:
            return (1 - self._left) / self._rate
        self._left -= 1
        return 0.0


class WrongKeys:
    """Counts wrong keys by address and in all. A right key is never counted, and always passes.

    Clients behind one address may be a customer and an attacker, so an address is never locked out.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._all = Bucket(BURST_IN_ALL, PER_SECOND_IN_ALL, clock())
        self._addresses: OrderedDict[str, Bucket] = OrderedDict()

    def record(self, address: str) -> int:
        """Count one: whole seconds after which `address` may try another, 0 if now."""
        now = self._clock()
        bucket = self._addresses.pop(address, None) or Bucket(BURST, PER_SECOND, now)
        self._addresses[address] = bucket
        if len(self._addresses) > MOST:
            self._addresses.popitem(last=False)
        return math.ceil(bucket.take(now) or self._all.take(now))
