"""Divides the rows of a batch fairly between shares, and decides which sequence to preempt for another. A
share is all requests with the same API key and adapter.

Each share with work is entitled to `part_of(rows, shares)` rows, and to as much of the KV memory. Others may
use what a share leaves unused. When it sends requests again, the share that exceeds its part most loses its
newest sequence, which is preempted. A row is kept for a moment for a client that is expected to send its next
request soon (`Seats`). If no share exceeds its part (more shares than rows, or a newcomer larger than its
part of the memory), a share without running sequences waits until the most served share is `QUANTUM` ahead of
it.

A preempted sequence keeps its tokens, and its KV cache as a prefix while there is memory. If the cache is
lost, the tokens are computed again. Each computed token earns credit for such recomputation, and without
credit no sequence is preempted. So at most about `RECOMPUTED` of the work is done twice, and a newcomer's
wait is bounded.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Sequence as Seq
from dataclasses import dataclass

from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.rows import KvRows
from server.engines.embedded.scheduling.step import Sequence
from server.engines.shared.fairness import FairQueue, part_of
from server.engines.shared.seats import Seats
from server.request import Share

QUANTUM = 256
"""Once the most served share is ahead by this much in the virtual token counter (128 generated tokens), a
share without running sequences is admitted.
"""
PATIENCE = 8
"""Number of steps for which a row is kept for a client that is expected to send its next request."""
RECOMPUTED = 1 / 8
"""Maximum share of tokens that may be computed a second time."""


@dataclass(slots=True, eq=False)
class Ticket:
    """What the scheduler records about a sequence."""

    sequence: Sequence
    order: int
    """Order of arrival; lower is older. Kept through preemptions."""
    unpaid: int
    """Number of prompt tokens that the counter of the sequence's share has not been charged for."""
    share: Share
    """The share that the request counts against."""
    reached: int = 0
    """Tokens that were ever computed or found in the cache. Computing them again is not charged."""
    preempted: int = 0
    """Number of times that the sequence was preempted because memory ran out."""
    made_way: bool = False
    """True if the sequence was preempted for another share and has not run since."""
    leader: Sequence | None = None
    """The running sequence that computes the prefix that this sequence waits for; None if it does not wait.
    """
    awaited: int = 0
    """Length of that prefix in tokens."""

    @property
    def name(self) -> str:
        """Id of the sequence's request."""
        return self.sequence.request.request_id

    @property
    def held(self) -> bool:
        """True if the sequence waits for a prefix that is still being computed."""
        leader = self.leader
        return leader is not None and leader.row >= 0 and leader.computed < self.awaited


class Parts:
    """Decides which sequence is preempted. `running` is the scheduler's own list, oldest first."""

    def __init__(
        self, limits: SchedulerLimits, rows: KvRows, queue: FairQueue[Ticket], running: Seq[Ticket]
    ) -> None:
        self._limits = limits
        self._rows = rows
        self._queue = queue
        self._running = running
        self.seats = Seats(PATIENCE)
        self.held: Counter[Share] = Counter()
        """Number of running rows of each share."""
        self._most_credit = limits.context / 2
        self._credit = 0.0

    @property
    def part(self) -> int:
        """Number of rows that each share with work is entitled to."""
        return part_of(self._limits.max_num_seqs, self._with_work)

    @property
    def _with_work(self) -> int:
        shares = {share for share, rows in self.held.items() if rows} | self._queue.counts().keys()
        shares |= {share for share, _ in self.seats.expected()}
        return sum(not share.background for share in shares)

    def kept_from(self, newcomer: Share) -> int:
        """Number of free rows that are kept for other shares, so that `newcomer` cannot have them."""
        return self.seats.kept_from(newcomer, self.part, self.held)

    def earn(self, computed: int) -> None:
        """Count computed tokens, which earn credit for recomputation."""
        self._credit = min(self._most_credit, self._credit + computed * RECOMPUTED)

    def pay(self, again: int) -> None:
        """Count tokens that are computed again after a preemption."""
        self._credit -= again

    def youngest(self) -> Ticket:
        """Return the sequence to preempt if memory runs out: the newest of the share furthest above its part.

        If no share exceeds its part, it is the newest of all. The oldest is never chosen while two run.
        """
        over = self._over(self.held, self.part)
        return self._newest(over) if over is not None else self._running[-1]

    def in_the_way(self, newcomer: Ticket, need: int, *, memory: bool) -> Ticket | None:
        """Return the sequence to preempt for `newcomer`, or None.

        With `memory`, the newcomer lacks `need` pages of memory; otherwise it lacks a row. Returns None if
        the newcomer's share already has its fair part, or if no other share has more than that.
        """
        share = newcomer.share
        if share.background or self._credit < 0:
            return None
        if memory:
            parts = part_of(self._rows.capacity, self._with_work)
            pages = self._pages()
            entitled = pages[share] + need <= parts
            over = self._over(pages, parts)
        else:
            part = self.part
            entitled = self.held[share] < part
            over = self._over(self.held, part)
        if entitled and over is not None:
            return self._newest(over)
        return self._by_turn(share) if not self.held[share] else None

    def _by_turn(self, share: Share) -> Ticket | None:
        """Return the newest sequence of the most served share, if it is over `QUANTUM` ahead of `share`."""
        served = self._queue.served
        others = [other for other, rows in self.held.items() if rows and other != share]
        ahead = max(others, key=served, default=None)
        if ahead is None or served(ahead) - self._to_come(ahead) - served(share) <= QUANTUM:
            return None
        return self._newest(ahead)

    def _to_come(self, share: Share) -> int:
        """Return the prompt tokens that a share was charged for but that are not computed yet."""
        tickets = (ticket for ticket in self._running if ticket.share == share)
        return sum(
            max(0, ticket.sequence.prompt_length - max(ticket.reached, ticket.sequence.computed))
            for ticket in tickets
        )

    def _over(self, has: Counter[Share], part: int) -> Share | None:
        """Return the share with the most rows or pages above `part`; among equals, the most served.

        Background shares have no part and come first. None if no share exceeds its part.
        """
        over = [s for s, count in has.items() if count > (0 if s.background else part)]
        return max(over, key=lambda s: (s.background, has[s], self._queue.served(s)), default=None)

    def _newest(self, share: Share) -> Ticket:
        return next(ticket for ticket in reversed(self._running) if ticket.share == share)

    def _pages(self) -> Counter[Share]:
        pages = Counter[Share]()
        for ticket in self._running:
            pages[ticket.share] += self._rows[ticket.sequence.row].pages
        return pages


def by_adapter(counts: Mapping[Share, int]) -> Mapping[str, int]:
    """Sum the counts over all API keys for each adapter."""
    sums = Counter[str]()
    for share, count in counts.items():
        if count:
            sums[share.adapter] += count
    return sums


class PromptTurns:
    """Orders prompts: the share with the fewest computed prompt tokens comes first."""

    def __init__(self) -> None:
        self._computed: dict[Share, int] = {}

    def begin(self, begun: list[Ticket], waiting: Iterable[Share]) -> set[Share]:
        """Begin a step: sort the prompts that are already being computed (`begun`). Return the waiting shares
        whose turn comes before them.

        A share that had no prompt in the last step starts level with the least served one.
        """
        shares = {*(ticket.share for ticket in begun), *waiting}
        least = min((count for share, count in self._computed.items() if share in shares), default=0)
        computed = self._computed = {share: self._computed.get(share, least) for share in shares}
        begun.sort(key=lambda ticket: computed[ticket.share])
        if not begun:
            return set()
        first = begun[0].share
        return {share for share in waiting if share != first and computed[share] <= computed[first]}

    def count(self, share: Share, tokens: int) -> None:
        """Count computed prompt tokens of a share."""
        if share in self._computed:
            self._computed[share] += tokens
