"""Rows that are kept for a moment for a share that is about to come back.

A client that sends its next request as soon as it has its answer leaves its row empty for a moment. If a
share beyond its part took the row meanwhile, it would be put back at once. So the row stays empty for up to
`patience`, if the share has come back so quickly before. What it does not take by then goes to others.
The idea is that of "Anticipatory scheduling: a disk scheduling framework to overcome deceptive idleness in
synchronous I/O" (Iyer & Druschel, SOSP 2001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from server.request import Share

MOST_TRUST = 3
"""Times in a row that a share may fail to come back before no row is kept for it."""


@dataclass(slots=True)
class ShareDepartures:
    """What is known of a share whose answers end."""

    times: deque[float] = field(default_factory=deque[float])
    """When each of its answers ended, of those after which it has not come back yet."""
    trust: int = 0
    """Above 0: it comes back in time."""


class Seats:
    """Which shares are expected back. Time has any unit, be it seconds or steps; it never runs backwards."""

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._departures: dict[Share, ShareDepartures] = {}

    def expire(self, now: float) -> None:
        """Give up those that have not come back in time."""
        for share, departures in list(self._departures.items()):
            while departures.times and departures.times[0] + self.patience < now:
                departures.times.popleft()
                departures.trust -= 1
            if not departures.times and departures.trust <= 0:
                del self._departures[share]

    def leave(self, share: Share, now: float) -> None:
        """An answer of `share` has ended."""
        if not share.background:
            self._departures.setdefault(share, ShareDepartures()).times.append(now)

    def come(self, share: Share) -> None:
        """A request of `share` has come."""
        departures = self._departures.get(share)
        if departures is not None and departures.times:
            departures.times.popleft()
            departures.trust = min(MOST_TRUST, max(0, departures.trust) + 1)

    def expected(self) -> Iterator[tuple[Share, int]]:
        """Each share that is expected back, with the number of its requests."""
        for share, departures in self._departures.items():
            if departures.trust > 0 and departures.times:
                yield share, len(departures.times)

    def kept_from(self, newcomer: Share, part: int, rows: Mapping[Share, int]) -> int:
        """Free rows that `newcomer` does not get, because they are kept for others within their `part`.

        `rows` is what each share runs on. 0 if `newcomer` has less than its part, or if nothing runs.
        """
        if not any(rows.values()) or (not newcomer.background and rows.get(newcomer, 0) < part):
            return 0
        return sum(
            min(count, max(0, part - rows.get(share, 0)))
            for share, count in self.expected()
            if share != newcomer
        )
