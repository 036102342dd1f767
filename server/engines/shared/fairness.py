"""Who is served next: one queue for each share, by its part of the rows and by what it was served.

The virtual token counter of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024): a share
pays for each prompt token that is computed and twice for each token that is generated. One whose queue was
empty is lifted to the others when it comes back, so that idling earns no credit.

Before the counter comes the part: a share that runs on fewer than `part_of` rows goes before one that has
its part or more. The counter decides between equals, and over the rows that are left.
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
    """What each of `shares` has for its own of so many places (rows or the queue): at least one."""
    return max(1, places // max(1, shares))


class RowSeeker(Protocol):
    """What waits for a row."""

    @property
    def share(self) -> Share:
        """Whose it is."""
        ...

    @property
    def name(self) -> str:
        """Unique among those that wait."""
        ...

    @property
    def held(self) -> bool:
        """Whether it waits for something other than a row."""
        ...


Waiting = TypeVar("Waiting", bound=RowSeeker)


@dataclass(slots=True, eq=False)
class ShareQueue(Generic[Waiting]):
    """One share's queue and its counter."""

    share: Share
    served: int = 0
    queue: OrderedDict[str, Waiting] = field(default_factory=OrderedDict[str, Waiting])


class FairQueue(Generic[Waiting]):
    """Queues by share. Within a share: first come, first served, those that were put back before."""

    def __init__(self) -> None:
        self._shares: dict[Share, ShareQueue[Waiting]] = {}
        self._last: ShareQueue[Waiting] | None = None

    def __bool__(self) -> bool:
        return any(share.queue for share in self._shares.values())

    def counts(self) -> dict[Share, int]:
        """What waits of each share that has any."""
        return {share.share: len(share.queue) for share in self._shares.values() if share.queue}

    def served(self, share: Share) -> int:
        """The share's counter."""
        return self._share(share).served

    def charge(self, share: Share, amount: int) -> None:
        """A share pays for work; a negative amount gives back what was not done."""
        self._share(share).served += amount

    def add(self, item: Waiting) -> None:
        """Queue a newcomer, lifting its share if nothing of it was waiting."""
        share = self._share(item.share)
        if not share.queue:
            others = [other.served for other in self._shares.values() if other.queue]
            if others:
                share.served = max(share.served, min(others))
            elif self._last is not None:
                share.served = max(share.served, self._last.served)
        share.queue[item.name] = item

    def put_back(self, item: Waiting) -> None:
        """Queue what was running before all others of its share."""
        queue = self._share(item.share).queue
        queue[item.name] = item
        queue.move_to_end(item.name, last=False)

    def remove(self, item: Waiting) -> None:
        """Take one out, to run or to leave."""
        share = self._shares[item.share]
        del share.queue[item.name]
        if not share.queue:
            self._last = share

    def in_order(self, depth: int, running: Mapping[Share, int], part: int) -> Iterator[Waiting]:
        """Whom to admit, best first: of shares that run on fewer rows than `part`, then of the others.

        Within both, the least served share first; what has no part comes last. Looks at most `depth` deep
        into each queue, past those that are held.
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
        """Every share that has a counter."""
        return list(self._shares)
