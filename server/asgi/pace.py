"""Spreads the refusals of a crowd, so that it does not come back as a crowd.

Clients that are refused together ask again together, a `Retry-After` later, and each such wave holds up
what streams. So the refusals of one share leave `INTERVAL` apart, each held for at most `LONGEST`. What
cannot leave within that time leaves at once. A refusal that comes alone is never held.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

INTERVAL = 0.008
"""Seconds between two refusals of one share."""
LONGEST = 0.5
"""Most seconds that a refusal is held."""
MOST_SHARES = 1024
"""Shares that are remembered."""


class RefusalPace:
    """When the next refusal of each share may leave. `clock` returns seconds."""

    def __init__(self, clock: Callable[[], float] | None = None) -> None:
        self._clock = clock
        self._next: dict[tuple[str, str], float] = {}

    def delay(self, asker: str, adapter: str) -> float:
        """Seconds to hold a refusal of this share."""
        now = self._clock() if self._clock is not None else asyncio.get_running_loop().time()
        share = asker, adapter
        if share not in self._next and not self._has_room(now):
            return 0.0
        at = max(now, self._next.get(share, 0.0))
        if at - now > LONGEST:
            return 0.0
        self._next[share] = at + INTERVAL
        return at - now

    def _has_room(self, now: float) -> bool:
        if len(self._next) >= MOST_SHARES:
            self._next = {share: time for share, time in self._next.items() if time > now}
        return len(self._next) < MOST_SHARES
