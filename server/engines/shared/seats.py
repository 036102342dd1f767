"""Keeps a place in the batch for a moment if a client is expected to send its next request soon.

A row is a place in the batch. A share is all requests with the same API key and adapter. If a client sends
its next request as soon as it has its answer, its row is empty only for a moment. Another share that has its
fair part already could take the row, but would be preempted at once. So the row is kept for up to `patience`
for a share that has sent its next request so quickly before. After that, any share can take it. The idea is
that of "Anticipatory scheduling: a disk scheduling framework to overcome deceptive idleness in synchronous
I/O" (Iyer & Druschel, SOSP 2001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from server.request import Share

MOST_TRUST = 3
"""A share may fail to send its next request in time this often in succession before rows are no longer kept
for it.
"""


@dataclass(slots=True)
class ShareDepartures:
    """How quickly a share (one API key with one adapter) sends its next request after an answer has ended."""

    times: deque[float] = field(default_factory=deque[float])
    """End times of those answers for the share that no further request has followed yet."""
    trust: int = 0
    """How often the next request came in time lately. Rows are kept for the share if this is above 0."""


class Seats:
    """Predicts which shares will soon send another request, so that rows of the batch are kept for them.

    Time has any unit, such as seconds or steps.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._departures: dict[Share, ShareDepartures] = {}

    def expire(self, now: float) -> None:
        """Free the rows that are kept for shares whose next request has not come in time."""
        for share, departures in list(self._departures.items()):
            while departures.times and departures.times[0] + self.patience < now:
                departures.times.popleft()
                departures.trust -= 1
            if not departures.times and departures.trust <= 0:
                del self._departures[share]

    def leave(self, share: Share, now: float) -> None:
        """Note that an answer for `share` has ended."""
        if not share.background:
            self._departures.setdefault(share, ShareDepartures()).times.append(now)

    def come(self, share: Share) -> None:
        """Note that a request of `share` has arrived."""
        departures = self._departures.get(share)
        if departures is not None and departures.times:
            departures.times.popleft()
            departures.trust = min(MOST_TRUST, max(0, departures.trust) + 1)

    def expected(self) -> Iterator[tuple[Share, int]]:
        """Return the shares that are expected to send requests soon, each with the number of requests."""
        for share, departures in self._departures.items():
            if departures.trust > 0 and departures.times:
                yield share, len(departures.times)

    def kept_from(self, newcomer: Share, part: int, rows: Mapping[Share, int]) -> int:
        """Return the number of free rows that `newcomer` cannot take, because they are kept for shares that
        have less than their `part`.

        `rows` is the number of rows that each share uses. Returns 0 if `newcomer` itself has less than its
        part, or if no request runs.
        """
        if not any(rows.values()) or (not newcomer.background and rows.get(newcomer, 0) < part):
            return 0
        return sum(
            min(count, max(0, part - rows.get(share, 0)))
            for share, count in self.expected()
            if share != newcomer
        )
