"""A lock for which waiting clients take turns, so that a client with many requests does not delay the
others.
"""

from __future__ import annotations

import asyncio
from collections import OrderedDict, deque


class FairTurns:
    """A lock that waiting clients get in turn (round-robin), however many requests each client has.

    Use it on a single event loop.
    """

    def __init__(self) -> None:
        self._taken = False
        self._askers: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()

    def waiting(self, asker: str) -> int:
        """Return the number of requests of the client `asker` that wait for the lock."""
        return len(self._askers.get(asker, ()))

    @property
    def all_waiting(self) -> int:
        """Number of requests of all clients that wait for the lock."""
        return sum(map(len, self._askers.values()))

    async def acquire(self, asker: str) -> None:
        """Wait for the lock on behalf of the client `asker`. The caller holds it until `release`."""
        if not self._taken:
            self._taken = True
            return
        mine = asyncio.get_running_loop().create_future()
        self._askers.setdefault(asker, deque()).append(mine)
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self.release()
            else:
                self._leave(asker, mine)
            raise

    def release(self) -> None:
        """Release the lock, and give it to the client whose turn is next."""
        while self._askers:
            asker, queue = self._askers.popitem(last=False)
            first = queue.popleft()
            if queue:
                self._askers[asker] = queue
            if not first.done():  # else whoever waited is leaving
                first.set_result(None)
                return
        self._taken = False

    def _leave(self, asker: str, mine: asyncio.Future[None]) -> None:
        queue = self._askers.get(asker, deque())
        if mine in queue:
            queue.remove(mine)
        if not queue:
            self._askers.pop(asker, None)
