"""Keeps a slot of the batch free for a moment if a client is expected to send its next request soon.

A row is a slot of the batch. A share is all requests with the same API key and adapter. If a client sends its
next request as soon as it has its answer, its row is free only for a moment. Another share that has its fair
part already could take the row, but would be preempted at once. So the row is kept free for up to `patience`
if the share has sent its next request so quickly before. After that, any share can take the row. The idea
comes from "Anticipatory scheduling: a disk scheduling framework to overcome deceptive idleness in synchronous
I/O" (Iyer & Druschel, SOSP 2001).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

from server.request import Share

MOST_TRUST = 3
"""Number of times in succession that a client may fail to send its next request in time before batch slots
are no longer kept free for it.
"""


@dataclass(slots=True)
class ShareDepartures:
    """How quickly a share (one API key with one adapter) sends its next request after an answer has ended."""

    times: deque[float] = field(default_factory=deque[float])
    """Times at which answers for this API key and adapter ended, for each answer after which no further
    request has arrived yet.
    """
    trust: int = 0
    """Grows if the next request with this API key and adapter comes in time, and falls if it does not. Batch
    slots are kept free for it while this is above 0.
    """


class Seats:
    """Predicts which shares (an API key with an adapter) will soon send another request, so that rows of the
    batch are kept free for them.

    Times may have any unit, such as seconds or steps.
    """

    def __init__(self, patience: float) -> None:
        self.patience = patience
        self._departures: dict[Share, ShareDepartures] = {}

    def expire(self, now: float) -> None:
        """Free the batch slots that were kept for clients whose next request has not come in time, at the
        time `now`.
        """
        for share, departures in list(self._departures.items()):
            while departures.times and departures.times[0] + self.patience < now:
                departures.times.popleft()
                departures.trust -= 1
            if not departures.times and departures.trust <= 0:
                del self._departures[share]

    def leave(self, share: Share, now: float) -> None:
        """Record that an answer for `share` (one API key with one adapter) ended at the time `now`."""
        if not share.background:
            self._departures.setdefault(share, ShareDepartures()).times.append(now)

    def come(self, share: Share) -> None:
        """Record that a request for `share` (one API key with one adapter) has arrived."""
        departures = self._departures.get(share)
        if departures is not None and departures.times:
            departures.times.popleft()
            departures.trust = min(MOST_TRUST, max(0, departures.trust) + 1)

    def expected(self) -> Iterator[tuple[Share, int]]:
        """Yield each API key and adapter that is expected to send requests soon, with the expected number of
        requests.
        """
        for share, departures in self._departures.items():
            if departures.trust > 0 and departures.times:
                yield share, len(departures.times)

    def kept_from(self, newcomer: Share, part: int, rows: Mapping[Share, int]) -> int:
        """Return the number of free batch slots that `newcomer` cannot take, because they are kept for other
        clients with fewer than `part` running requests.

        A client is one API key with one adapter. `rows` maps each client to its number of running requests.
        Returns 0 if `newcomer` itself runs fewer than `part` requests, or if no request runs.
        """
        if not any(rows.values()) or (not newcomer.background and rows.get(newcomer, 0) < part):
            return 0
        return sum(
            min(count, max(0, part - rows.get(share, 0)))
            for share, count in self.expected()
            if share != newcomer
        )
