"""Who is served next: one queue for each share, the least served share first.

The virtual token counter of "Fairness in Serving Large Language Models" (Sheng et al., OSDI 2024): a share
pays for each prompt token that is computed and twice for each token that is generated; the share with the
lowest counter is admitted next; one whose queue was empty is lifted to the others when it comes back, so
that idling earns no credit. What two shares pay while both have work waiting then differs by at most
2 · max(longest prompt, 2 · tokens that can be in flight), whatever others ask for.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice

from server.engines.embedded.scheduling.step import Sequence

PROMPT_PRICE = 1
OUTPUT_PRICE = 2


@dataclass(slots=True, eq=False)
class Ticket:
    """What the scheduler knows of a sequence beyond the sequence itself."""

    sequence: Sequence
    order: int
    """Age: the lower, the older. Kept through preemptions."""
    unpaid: int
    """Prompt tokens that its share has not paid for."""
    reached: int = 0
    """Tokens of it that were ever computed or found; what is computed again costs its share nothing."""
    preempted: int = 0
    """Times it was put back for want of memory."""
    leader: Sequence | None = None
    """A running sequence that computes a prefix it waits for."""
    awaited: int = 0
    """Tokens of that prefix."""

    @property
    def held(self) -> bool:
        """Whether its prefix is still being computed."""
        leader = self.leader
        return leader is not None and leader.row >= 0 and leader.computed < self.awaited


@dataclass(slots=True, eq=False)
class Share:
    """One share's queue and its counter."""

    name: str
    served: int = 0
    queue: OrderedDict[str, Ticket] = field(default_factory=OrderedDict[str, Ticket])


class FairQueue:
    """Queues by share. Within a share: first come, first served, preempted ones before."""

    def __init__(self) -> None:
        self._shares: dict[str, Share] = {}
        self._last: Share | None = None

    def __bool__(self) -> bool:
        return any(share.queue for share in self._shares.values())

    def counts(self) -> dict[str, int]:
        """Waiting sequences of each share that has any."""
        return {share.name: len(share.queue) for share in self._shares.values() if share.queue}

    def charge(self, name: str, amount: int) -> None:
        """A share pays for work; a negative amount gives back what was not done."""
        self._share(name).served += amount

    def add(self, ticket: Ticket) -> None:
        """Queue a newcomer, lifting its share where nothing of it was waiting."""
        request = ticket.sequence.request
        share = self._share(request.share)
        if not share.queue:
            others = [other.served for other in self._shares.values() if other.queue]
            if others:
                share.served = max(share.served, min(others))
            elif self._last is not None:
                share.served = max(share.served, self._last.served)
        share.queue[request.request_id] = ticket

    def put_back(self, ticket: Ticket) -> None:
        """Queue a preempted sequence before all others of its share."""
        request = ticket.sequence.request
        queue = self._share(request.share).queue
        queue[request.request_id] = ticket
        queue.move_to_end(request.request_id, last=False)

    def remove(self, ticket: Ticket) -> None:
        """Take a sequence out, to run or to leave."""
        request = ticket.sequence.request
        share = self._shares[request.share]
        del share.queue[request.request_id]
        if not share.queue:
            self._last = share

    def in_order(self, depth: int) -> Iterator[Ticket]:
        """Whom to admit, best first: those of the least served share, then of the next.

        Looks at most `depth` deep into each queue, past sequences that wait for another's prefix.
        """
        for share in sorted((s for s in self._shares.values() if s.queue), key=lambda s: s.served):
            for ticket in list(islice(share.queue.values(), depth)):
                if not ticket.held:
                    yield ticket

    def _share(self, name: str) -> Share:
        share = self._shares.get(name)
        if share is None:
            share = self._shares[name] = Share(name)
        return share

    def forget(self, name: str) -> None:
        """Drop the counter of a share with nothing waiting."""
        share = self._shares.get(name)
        if share is not None and not share.queue:
            del self._shares[name]
