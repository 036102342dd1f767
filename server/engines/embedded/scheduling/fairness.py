"""Divides the batch fairly between clients, and decides which sequence to preempt for another. A client, here
and in the code a `Share`, is one API key with one adapter.

Each client with requests is entitled to an equal part of the batch slots (rows), `part_of(rows, shares)`, and
of the KV cache. Others may use what a client leaves unused. When the client sends requests again, the client
that exceeds its part most has its newest sequence preempted. A batch slot is kept free for a moment for a
client that is expected to send its next request soon (`Seats`).

It can be that no client exceeds its part: there are more clients than slots, or a new sequence needs more
than its client's part of the KV cache. Then a client without running sequences waits until the most served
client is `QUANTUM` ahead of it.

A preempted sequence keeps its tokens, and its KV cache as a prefix while there is memory. If the KV cache is
lost, the tokens are computed again. Each computed token earns credit for such recomputation, and without
credit no sequence is preempted for fairness. So at most about the fraction `RECOMPUTED` of the work is done
twice, and a new sequence's wait is bounded.
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
"""How far ahead the most served client must be, in the virtual token counter, before it loses a sequence to a
client that has none running. The value equals 128 generated tokens.
"""
PATIENCE = 8
"""Number of engine steps for which a batch slot is kept free for a client that is expected to send its next
request.
"""
RECOMPUTED = 1 / 8
"""Maximum fraction of tokens that may be computed a second time after preemptions."""


@dataclass(slots=True, eq=False)
class Ticket:
    """What the scheduler records about a waiting or running sequence, for fairness and preemption."""

    sequence: Sequence
    order: int
    """Number in the order of arrival; lower is older. A preempted sequence keeps its number."""
    unpaid: int
    """Number of prompt tokens that are not yet counted in the fairness counter of the sequence's client (API
    key and adapter).
    """
    share: Share
    """The client (API key and adapter) whose fair part of the engine the sequence uses."""
    reached: int = 0
    """Number of tokens that were ever computed or found in the prefix cache. Computing them again does not
    count in the client's fairness counter.
    """
    preempted: int = 0
    """Number of times that the sequence was preempted because the KV cache was full."""
    made_way: bool = False
    """True if the sequence was preempted in favour of another client (API key and adapter) and has not run
    since.
    """
    leader: Sequence | None = None
    """The running sequence whose prompt prefix this sequence waits for, to reuse it from the KV cache; None
    if it does not wait.
    """
    awaited: int = 0
    """Length in tokens of the prefix that another sequence is computing and that this sequence waits for."""

    @property
    def name(self) -> str:
        """Id of the request that the sequence belongs to."""
        return self.sequence.request.request_id

    @property
    def held(self) -> bool:
        """True while the sequence waits for another sequence to compute their common prefix."""
        leader = self.leader
        return leader is not None and leader.row >= 0 and leader.computed < self.awaited


class Parts:
    """Divides batch slots and KV cache between clients (API key and adapter), and decides which sequence is
    preempted.

    `running` is the scheduler's own list of running sequences, oldest first.
    """

    def __init__(
        self, limits: SchedulerLimits, rows: KvRows, queue: FairQueue[Ticket], running: Seq[Ticket]
    ) -> None:
        self._limits = limits
        self._rows = rows
        self._queue = queue
        self._running = running
        self.seats = Seats(PATIENCE)
        self.held: Counter[Share] = Counter()
        """Number of running sequences of each client (API key and adapter)."""
        self._most_credit = limits.context / 2
        self._credit = 0.0

    @property
    def part(self) -> int:
        """Number of batch slots to which each client (API key and adapter) with requests is entitled."""
        return part_of(self._limits.max_num_seqs, self._with_work)

    @property
    def _with_work(self) -> int:
        shares = {share for share, rows in self.held.items() if rows} | self._queue.counts().keys()
        shares |= {share for share, _ in self.seats.expected()}
        return sum(not share.background for share in shares)

    def kept_from(self, newcomer: Share) -> int:
        """Number of free batch slots that are reserved for other clients, so that the client `newcomer` may
        not use them.
        """
        return self.seats.kept_from(newcomer, self.part, self.held)

    def earn(self, computed: int) -> None:
        """Count computed tokens.

        Each earns credit for recomputing the fraction `RECOMPUTED` of a token after a preemption.
        """
        self._credit = min(self._most_credit, self._credit + computed * RECOMPUTED)

    def pay(self, again: int) -> None:
        """Pay with credit for `again` tokens, which are computed a second time after a preemption."""
        self._credit -= again

    def youngest(self) -> Ticket:
        """Return the sequence to preempt if the KV cache is full: the newest of the client that exceeds its
        fair part most.

        If no client exceeds its part, it is the newest of all sequences. The oldest is never chosen while at
        least two run.
        """
        over = self._over(self.held, self.part)
        return self._newest(over) if over is not None else self._running[-1]

    def in_the_way(self, newcomer: Ticket, need: int, *, memory: bool) -> Ticket | None:
        """Return the sequence to preempt in favour of the waiting sequence `newcomer`, or None.

        With `memory`, the newcomer lacks `need` pages of KV cache; otherwise it lacks a batch slot. Returns
        None if the newcomer's client already has its fair part, or if no other client has more than its own
        part.
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
        """Return the newest sequence of the most served client, if this client is more than `QUANTUM` ahead
        of the client `share`; else None.
        """
        served = self._queue.served
        others = [other for other, rows in self.held.items() if rows and other != share]
        ahead = max(others, key=served, default=None)
        if ahead is None or served(ahead) - self._to_come(ahead) - served(share) <= QUANTUM:
            return None
        return self._newest(ahead)

    def _to_come(self, share: Share) -> int:
        """Return the number of prompt tokens that the fairness counter of client `share` includes but that
        are not computed yet.
        """
        tickets = (ticket for ticket in self._running if ticket.share == share)
        return sum(
            max(0, ticket.sequence.prompt_length - max(ticket.reached, ticket.sequence.computed))
            for ticket in tickets
        )

    def _over(self, has: Counter[Share], part: int) -> Share | None:
        """Return the client with the most batch slots or KV cache pages above `part`; among equals, the most
        served client.

        Background requests are entitled to nothing and come first. Returns None if no client exceeds its
        part.
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
    """Sum `counts`, which are per API key and adapter, over all API keys for each adapter."""
    sums = Counter[str]()
    for share, count in counts.items():
        if count:
            sums[share.adapter] += count
    return sums


class PromptTurns:
    """Decides the order of prompts in a step: first the client (API key and adapter) with the fewest prompt
    tokens computed.
    """

    def __init__(self) -> None:
        self._computed: dict[Share, int] = {}

    def begin(self, begun: list[Ticket], waiting: Iterable[Share]) -> set[Share]:
        """Begin a step: sort the prompts that are already being computed (`begun`) by the number of prompt
        tokens that were computed for their clients.

        Returns the clients in `waiting` whose prompts come before the first prompt in `begun`; none if
        `begun` is empty. A client that had no prompt in the last step starts level with the least served
        client.
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
        """Count prompt tokens that were computed for a client (API key and adapter)."""
        if share in self._computed:
            self._computed[share] += tokens
