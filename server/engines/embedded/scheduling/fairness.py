"""Rows and prompts between shares: what each has for its own, and who is put back for whom.

Each share with work has `part_of(rows, shares)` rows for its own, and as much of the KV memory. What one
leaves unused the others use, so no row idles; but once it comes back, whoever has more than its own part is
put back: the newest sequence of the share with the most. A row of its part is kept for a share that is
about to come back (`Seats`). If no share has too much (more shares than rows, or a newcomer larger than its
part of the memory), one that runs nothing waits until the most served share is `QUANTUM` ahead of it.

A sequence that was put back keeps its tokens, and its keys and values as a prefix while there is memory. If
they are gone they are computed again; credit for that grows with the work done, and without any nobody is
put back. So about `RECOMPUTED` of the work is done twice at most, and the wait of a newcomer has an end.
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
"""Lead in the virtual token counter, 128 tokens generated, from which a share that runs nothing is let in."""
PATIENCE = 8
"""Steps for which a row is kept for a share that comes back at once."""
RECOMPUTED = 1 / 8
"""Tokens that may be computed again for each that is computed."""


@dataclass(slots=True, eq=False)
class Ticket:
    """What the scheduler knows of a sequence beyond the sequence itself."""

    sequence: Sequence
    order: int
    """Age: the lower, the older. Kept through preemptions."""
    unpaid: int
    """Prompt tokens that its share has not paid for."""
    share: Share
    """Whose part it takes."""
    reached: int = 0
    """Tokens of it that were ever computed or found; what is computed again costs its share nothing."""
    preempted: int = 0
    """Times it was put back for want of memory."""
    made_way: bool = False
    """True if it was put back for another share, and has not run since."""
    leader: Sequence | None = None
    """A running sequence that computes a prefix it waits for."""
    awaited: int = 0
    """Tokens of that prefix."""

    @property
    def name(self) -> str:
        """The request's id."""
        return self.sequence.request.request_id

    @property
    def held(self) -> bool:
        """Whether its prefix is still being computed."""
        leader = self.leader
        return leader is not None and leader.row >= 0 and leader.computed < self.awaited


class Parts:
    """Decides who is put back. `running` is the scheduler's own list, oldest first."""

    def __init__(
        self, limits: SchedulerLimits, rows: KvRows, queue: FairQueue[Ticket], running: Seq[Ticket]
    ) -> None:
        self._limits = limits
        self._rows = rows
        self._queue = queue
        self._running = running
        self.seats = Seats(PATIENCE)
        self.held: Counter[Share] = Counter()
        """Rows of each share."""
        self._most_credit = limits.context / 2
        self._credit = 0.0

    @property
    def part(self) -> int:
        """Rows that each share with work has for its own."""
        return part_of(self._limits.max_num_seqs, self._with_work)

    @property
    def _with_work(self) -> int:
        shares = {share for share, rows in self.held.items() if rows} | self._queue.counts().keys()
        shares |= {share for share, _ in self.seats.expected()}
        return sum(not share.background for share in shares)

    def kept_from(self, newcomer: Share) -> int:
        """Free rows that `newcomer` does not get, because they are kept for others within their part."""
        return self.seats.kept_from(newcomer, self.part, self.held)

    def earn(self, computed: int) -> None:
        """Count tokens that were computed, by which a part may be computed again."""
        self._credit = min(self._most_credit, self._credit + computed * RECOMPUTED)

    def pay(self, again: int) -> None:
        """Count tokens that are computed a second time, because their sequence made way."""
        self._credit -= again

    def youngest(self) -> Ticket:
        """Who is put back if memory runs out: of the share that has most beyond its part, else of all.

        The oldest of all is never among them, as long as two run.
        """
        over = self._over(self.held, self.part)
        return self._newest(over) if over is not None else self._running[-1]

    def in_the_way(self, newcomer: Ticket, need: int, *, memory: bool) -> Ticket | None:
        """Who is put back for `newcomer`, which is next and finds no row, or no `memory` for `need` pages.

        None if it has its part already, or if nobody has more than theirs.
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
        """The newest sequence of the most served share, if that is far ahead of `share`."""
        served = self._queue.served
        others = [other for other, rows in self.held.items() if rows and other != share]
        ahead = max(others, key=served, default=None)
        if ahead is None or served(ahead) - self._to_come(ahead) - served(share) <= QUANTUM:
            return None
        return self._newest(ahead)

    def _to_come(self, share: Share) -> int:
        """Prompt tokens that it has paid for and that are still to be computed."""
        tickets = (ticket for ticket in self._running if ticket.share == share)
        return sum(
            max(0, ticket.sequence.prompt_length - max(ticket.reached, ticket.sequence.computed))
            for ticket in tickets
        )

    def _over(self, has: Counter[Share], part: int) -> Share | None:
        """The share with most beyond `part`, of equals the most served; what has no part before all."""
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
    """What all keys have of each adapter."""
    sums = Counter[str]()
    for share, count in counts.items():
        if count:
            sums[share.adapter] += count
    return sums


class PromptTurns:
    """Whose prompts are computed first: the share's of which the fewest tokens were, while others' wait."""

    def __init__(self) -> None:
        self._computed: dict[Share, int] = {}

    def begin(self, begun: list[Ticket], waiting: Iterable[Share]) -> set[Share]:
        """Begin a step: sort the prompts that are `begun`, and return which waiting shares go before them.

        A share that had no prompt before has no credit.
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
        """Prompt tokens were computed."""
        if share in self._computed:
            self._computed[share] += tokens
