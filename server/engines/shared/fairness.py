"""Decides which waiting request runs next, fairly between shares. A share is all requests with the same key
and adapter.

The virtual token counter of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024): a share
pays for each prompt token that is computed and twice for each token that is generated. If a share's queue was
empty, its counter is raised to the others' when it sends requests again, so that idling earns no credit. A
share that runs on fewer than `part_of` rows of the batch comes before all shares that run on as many or more.
Within both groups, the share with the lowest counter comes first.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Generic, Protocol, TypeVar

from server.request import Share

PROMPT_PRICE = 1
OUTPUT_PRICE = 2


def part_of(places: int, shares: int) -> int:
    """Return the number of places that each of `shares` is entitled to, in the batch or in the queue: at
    least one.
    """
    return max(1, places // max(1, shares))


class RowSeeker(Protocol):
    """A request that waits for a row of the batch."""

    @property
    def share(self) -> Share:
        """The share that the request belongs to."""
        ...

    @property
    def name(self) -> str:
        """Id that is unique among the waiting requests."""
        ...

    @property
    def held(self) -> bool:
        """True if the request waits for something other than a row, such as its adapter."""
        ...


Waiting = TypeVar("Waiting", bound=RowSeeker)


@dataclass(slots=True, eq=False)
class ShareQueue(Generic[Waiting]):
    """The queue of one share, and the work that it has received."""

    share: Share
    served: int = 0
    queue: OrderedDict[str, Waiting] = field(default_factory=OrderedDict[str, Waiting])


class FairQueue(Generic[Waiting]):
    """A queue for each share. Within a share, requests that were preempted go first, then the oldest."""

    def __init__(self) -> None:
        self._shares: dict[Share, ShareQueue[Waiting]] = {}
        self._last: ShareQueue[Waiting] | None = None

    def __bool__(self) -> bool:
        return any(share.queue for share in self._shares.values())

    def counts(self) -> dict[Share, int]:
        """Waiting requests by share. Shares without any are left out."""
        return {share.share: len(share.queue) for share in self._shares.values() if share.queue}

    def served(self, share: Share) -> int:
        """Return the share's counter: the tokens that it was served, weighted."""
        return self._share(share).served

    def charge(self, share: Share, amount: int) -> None:
        """Add work to a share's counter. A negative amount takes back work that was not done."""
        self._share(share).served += amount

    def add(self, item: Waiting) -> None:
        """Queue a new request. If no other request of its share waits, raise the share's counter to the
        others'.
        """
        share = self._share(item.share)
        if not share.queue:
            others = [other.served for other in self._shares.values() if other.queue]
            if others:
                share.served = max(share.served, min(others))
            elif self._last is not None:
                share.served = max(share.served, self._last.served)
        share.queue[item.name] = item

    def put_back(self, item: Waiting) -> None:
        """Put a request that was running back into the queue, before all others of its share."""
        queue = self._share(item.share).queue
        queue[item.name] = item
        queue.move_to_end(item.name, last=False)

    def remove(self, item: Waiting) -> None:
        """Take a request out of the queue, because it runs or was cancelled."""
        share = self._shares[item.share]
        del share.queue[item.name]
        if not share.queue:
            self._last = share

    def in_order(self, depth: int, running: Mapping[Share, int], part: int) -> Iterator[Waiting]:
        """Yield the requests to run, best first: those of shares with fewer running rows than `part`, then
        others.

        Within both groups, the least served share comes first. Background work comes last. At most `depth`
        requests of each queue are considered, without those that are held.
        """

        def rank(queue: ShareQueue[Waiting]) -> tuple[bool, bool, int]:
            return queue.share.background, running.get(queue.share, 0) >= part, queue.served

        for share in sorted((s for s in self._shares.values() if s.queue), key=rank):
            for item in list(islice(share.queue.values(), depth)):
                if not item.held:
                    yield item

    def _share(self, name: Share) -> ShareQueue[Waiting]:
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = ShareQueue(name)
        return share

    def forget(self, share: Share) -> None:
        """Drop the counter of a share with nothing waiting."""
        found = self._shares.get(share)
        if found is not None and not found.queue:
            del self._shares[share]

    def known(self) -> list[Share]:
        """All shares that have a counter."""
        return list(self._shares)
