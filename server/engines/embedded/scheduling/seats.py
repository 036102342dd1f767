"""Rows that are kept for a moment for a share that is about to come back.

A client that sends its next request as soon as it has its answer leaves its row empty for a few steps. If a
share beyond its part took the row meanwhile, it would be put back at once. So the row stays empty for up to
`PATIENCE` steps, if the share has come back so quickly before. What it does not take by then goes to others.
The idea is that of "Anticipatory scheduling: a disk scheduling framework to overcome deceptive idleness in
synchronous I/O" (Iyer & Druschel, SOSP 2001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field

from server.request import Share

PATIENCE = 8
"""Steps for which a row is kept."""
MOST_TRUST = 3
"""Times in a row that a share may fail to come back before no row is kept for it."""


@dataclass(slots=True)
class Departures:
    """What is known of a share whose answers end."""

    steps: deque[int] = field(default_factory=deque[int])
    """When each of its answers ended, of those after which it has not come back yet."""
    trust: int = 0
    """Above 0: it comes back within `PATIENCE` steps."""


class Seats:
    """Which shares are expected back."""

    def __init__(self) -> None:
        self._step = 0
        self._departures: dict[Share, Departures] = {}

    def begin_step(self) -> None:
        """Count a step, and give up those that have not come back in time."""
        self._step += 1
        for share, departures in list(self._departures.items()):
            while departures.steps and departures.steps[0] + PATIENCE < self._step:
                departures.steps.popleft()
                departures.trust -= 1
            if not departures.steps and departures.trust <= 0:
                del self._departures[share]

    def leave(self, share: Share) -> None:
        """An answer of `share` has ended."""
        if not share.background:
            self._departures.setdefault(share, Departures()).steps.append(self._step)

    def come(self, share: Share) -> None:
        """A request of `share` has come."""
        departures = self._departures.get(share)
        if departures is not None and departures.steps:
            departures.steps.popleft()
            departures.trust = min(MOST_TRUST, max(0, departures.trust) + 1)

    def expected(self) -> Iterator[tuple[Share, int]]:
        """Each share that is expected back, with the number of its requests."""
        for share, departures in self._departures.items():
            if departures.trust > 0 and departures.steps:
                yield share, len(departures.steps)
