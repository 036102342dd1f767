"""Decides which waiting request runs next, so that all clients get an equal part of the engine. A share is
all requests with the same API key and adapter.

Implements the virtual token counter of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024):
a share's counter grows by 1 for each prompt token that is computed and by 2 for each token that is generated.
If a share had no waiting request, its counter is raised to the lowest of the others when it sends requests
again, so that idling earns no credit. A share with fewer running requests than its fair part (`part_of`)
comes before the shares that have their part already. Within both groups, the share with the lowest counter
comes first.
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
    """Return how many of `places` (batch slots or queue places) each of `shares` clients is entitled to: an
    equal part, at least one.
    """
    return max(1, places // max(1, shares))


class RowSeeker(Protocol):
    """A request that waits for a free slot in the batch."""

    @property
    def share(self) -> Share:
        """The API key and adapter that the request is counted under."""
        ...

    @property
    def name(self) -> str:
        """Id that is unique among the waiting requests."""
        ...

    @property
    def held(self) -> bool:
        """True if the request cannot run even in a free batch slot, for example because its adapter is not
        loaded yet.
        """
        ...


Waiting = TypeVar("Waiting", bound=RowSeeker)


@dataclass(slots=True, eq=False)
class ShareQueue(Generic[Waiting]):
    """The waiting requests with one API key and adapter, and the weighted number of tokens that these have
    received.
    """

    share: Share
    served: int = 0
    queue: OrderedDict[str, Waiting] = field(default_factory=OrderedDict[str, Waiting])


class FairQueue(Generic[Waiting]):
    """Holds a queue of waiting requests for each API key and adapter. In each queue, requests that were
    preempted come first, then the oldest.
    """

    def __init__(self) -> None:
        self._shares: dict[Share, ShareQueue[Waiting]] = {}
        self._last: ShareQueue[Waiting] | None = None

    def __bool__(self) -> bool:
        return any(share.queue for share in self._shares.values())

    def counts(self) -> dict[Share, int]:
        """Return the number of waiting requests for each API key and adapter that has any."""
        return {share.share: len(share.queue) for share in self._shares.values() if share.queue}

    def served(self, share: Share) -> int:
        """Return the token counter of `share` (one API key with one adapter): the weighted number of tokens
        that the engine has computed for it.
        """
        return self._share(share).served

    def charge(self, share: Share, amount: int) -> None:
        """Add `amount` weighted tokens to the counter of `share` (one API key with one adapter). A negative
        amount takes back tokens that were not computed.
        """
        self._share(share).served += amount

    def add(self, item: Waiting) -> None:
        """Put a new request into the queue of its API key and adapter.

        If that queue was empty, raise its token counter to the lowest counter of the queues that are not
        empty.
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
        """Put a preempted request back into the queue of its API key and adapter, before all others in that
        queue.
        """
        queue = self._share(item.share).queue
        queue[item.name] = item
        queue.move_to_end(item.name, last=False)

    def remove(self, item: Waiting) -> None:
        """Take a request out of the queue of its API key and adapter, because the request begins to run or
        was cancelled.
        """
        share = self._shares[item.share]
        del share.queue[item.name]
        if not share.queue:
            self._last = share

    def in_order(self, depth: int, running: Mapping[Share, int], part: int) -> Iterator[Waiting]:
        """Yield the waiting requests in the order in which they may run.

        First come the requests of API keys and adapters with fewer than `part` running requests, then all
        others. Within both groups, the API key and adapter with the lowest token counter comes first.
        Background requests come last. Only the first `depth` requests of each queue are considered, and those
        with `held` are skipped.
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
        """Drop the token counter of `share` (one API key with one adapter) if it has no waiting request."""
        found = self._shares.get(share)
        if found is not None and not found.queue:
            del self._shares[share]

    def known(self) -> list[Share]:
        """Return every pair of API key and adapter that has a token counter."""
        return list(self._shares)
