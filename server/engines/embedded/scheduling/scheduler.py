"""What each step computes: who joins, who goes on, who makes room.

The engine's loop is `schedule`, run, `advance`, then `append` for each sampled token and `finish` where a
text ends. All calls come from one thread; between these, `add` and `cancel` are allowed at any time.
Imports no tensor library.
"""

from __future__ import annotations

import time
from bisect import insort
from collections.abc import Container, Iterator, Mapping

from server.engines.embedded.scheduling.batch import Batch
from server.engines.embedded.scheduling.fairness import Parts, PromptTurns, Ticket, by_adapter
from server.engines.embedded.scheduling.headroom import Headroom
from server.engines.embedded.scheduling.limits import PAGE, SchedulerLimits
from server.engines.embedded.scheduling.placement import LEAST_SHARED, Placement, key_of
from server.engines.embedded.scheduling.rows import KvRow, KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence, SequenceState, Step
from server.engines.shared.fairness import OUTPUT_PRICE, PROMPT_PRICE, FairQueue
from server.request import Share

DEPTH = 32
"""How deep into a queue to look past sequences that wait for another's prefix."""


class Scheduler:
    """Continuous batching over rows of KV memory."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self._rows = KvRows(limits.rows, limits.kv_capacity // PAGE)
        self._placement = Placement(self._rows, limits)
        self._headroom = Headroom(self._rows, limits.context)
        self._waiting = FairQueue[Ticket]()
        self._running: list[Ticket] = []
        """Oldest first."""
        self._turns = PromptTurns()
        self._parts = Parts(limits, self._rows, self._waiting, self._running)
        self._tickets: dict[str, Ticket] = {}
        self._order = self._number = 0
        self._considered: Ticket | None = None
        """The newcomer being weighed: whose fault it is where that fails."""
        self._aside: Ticket | None = None
        """Who made way in the step being made, and does not join in it."""
        self._faults: list[tuple[Sequence, Exception]] = []
        self._queries = self._hits = self._preemptions = self._made_way = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises `ValueError` where it can never fit, or its id is taken."""
        request = sequence.request
        total = len(request.prompt) + request.sampling.max_tokens
        if total > self.limits.context:
            raise ValueError(
                f"prompt and max_tokens are {total} tokens together; the context is {self.limits.context}"
            )
        if pages_of(total) > self._rows.capacity:
            raise ValueError(
                f"prompt and max_tokens are {total} tokens together; "
                f"the KV memory holds {self._rows.capacity * PAGE}: lower max_tokens or raise kv_tokens"
            )
        if not request.prompt:
            raise ValueError("prompt is empty; it must have at least one token")
        if request.request_id in self._tickets:
            raise ValueError(f"request_id {request.request_id!r} is already scheduled")
        self._order += 1
        ticket = Ticket(sequence, self._order, len(request.prompt), request.fair_share)
        self._tickets[request.request_id] = ticket
        self._waiting.add(ticket)
        self._parts.seats.come(ticket.share)

    def cancel(self, request_id: str, *, reuse: bool = True) -> Sequence | None:
        """Drop a sequence, wherever it is; None where there is none of that id.

        What it computed stays for reuse, unless `reuse` is false: for a fault in the computation itself.
        """
        ticket = self._tickets.get(request_id)
        if ticket is None:
            return None
        if ticket.sequence.state is SequenceState.RUNNING:
            self._leave(ticket, reuse=reuse)
        else:
            self._waiting.remove(ticket)
        return self._close(ticket)

    def finish(self, sequence: Sequence) -> None:
        """End a running sequence; what it computed stays for reuse. `ValueError` where it does not run."""
        ticket = self._ticket(sequence)
        self._leave(ticket)
        self._close(ticket)
        self._parts.seats.leave(ticket.share, self._number)

    def schedule(self) -> Step:
        """Decide the next step: growth, who makes way, then prompts and newcomers, then moves.

        `released` is to be given back before the step's other work, for the KV budget to hold at every
        moment. An empty step releases nothing; what became empty meanwhile comes with the next.
        """
        now = time.perf_counter()
        self._number += 1
        self._parts.seats.expire(self._number)
        squeezed = self._grow()
        if not squeezed:
            self._make_way()
        batch = Batch(self.limits, [ticket.sequence for ticket in self._running])
        joined = self._fill(batch, now, newcomers=not squeezed and bool(self._waiting))
        if not joined:
            self._placement.compact()
        faults, self._faults = self._faults, []
        if not batch:
            return Step(faults=faults)
        copies, released = self._rows.flush()
        return Step(copies, batch.chunks, sorted(batch.decodes, key=_row), released, faults)

    def advance(self, step: Step) -> None:
        """Record that `step` has run. Sequences that left meanwhile are passed over."""
        computed = len(step.decodes)
        for chunk in step.chunks:
            computed += chunk.length
            if chunk.sequence.row >= 0:
                chunk.sequence.computed += chunk.length
            self._turns.count(chunk.sequence.request.fair_share, chunk.length)
        for sequence in step.decodes:
            if sequence.row >= 0:
                sequence.computed += 1
        self._placement.earn(computed)
        self._parts.earn(computed)

    def append(self, sequence: Sequence, token: int) -> None:
        """Give a running sequence, all of whose tokens are computed, the token sampled for it."""
        if sequence.row < 0 or sequence.computed != len(sequence.tokens):
            raise ValueError(
                f"request {sequence.request.request_id!r} awaits no token: state {sequence.state.value}, "
                f"{sequence.computed} of {len(sequence.tokens)} computed"
            )
        request = sequence.request
        if sequence.generated >= request.sampling.max_tokens:
            raise ValueError(
                f"request {request.request_id!r} has all of its max_tokens, {request.sampling.max_tokens}"
            )
        sequence.tokens.append(token)
        self._waiting.charge(self._tickets[request.request_id].share, OUTPUT_PRICE)

    def forget(self, digest: str) -> None:
        """Drop what is kept for reuse under any mix that names this adapter, and its idle counters."""
        for row in self._rows.cached():
            if row.key is not None and any(name == digest for name, _ in row.key[0]):
                self._rows.empty(row)
        for share in self._waiting.known():
            if share.adapter == digest and not self._parts.held[share]:
                self._waiting.forget(share)

    def lend(self, count: int) -> list[int]:
        """Up to `count` rows for use before the next `schedule`, ascending; what they held is forgotten.

        If too few are free, running sequences are put back.
        """
        count = min(count, self.limits.rows)
        while len(free := list(self._rows.usable())) < count:
            self._preempt(self._parts.youngest())
        lent = sorted(free, key=lambda row: row.used)[:count]
        for row in lent:
            self._rows.release(row)
        return sorted(row.index for row in lent)

    @property
    def idle(self) -> bool:
        """Whether nothing runs or waits."""
        return not self._tickets

    @property
    def running_by_share(self) -> Mapping[str, int]:
        """Running sequences of each adapter."""
        return by_adapter(self._parts.held)

    @property
    def waiting_by_share(self) -> Mapping[str, int]:
        """Waiting sequences of each adapter."""
        return by_adapter(self._waiting.counts())

    @property
    def num_waiting(self) -> int:
        """Waiting sequences in all."""
        return len(self._tickets) - len(self._running)

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV memory in use, prefixes kept for reuse included; whole pages."""
        return self._rows.pages * PAGE

    @property
    def kv_cached(self) -> int:
        """Of `kv_tokens`, what no running sequence holds."""
        return self._rows.cached_pages * PAGE

    @property
    def kv_capacity(self) -> int:
        """Tokens that the KV budget holds; whole pages."""
        return self._rows.capacity * PAGE

    @property
    def prefix_queries(self) -> int:
        """Prompt tokens looked up for reuse."""
        return self._queries

    @property
    def prefix_hits(self) -> int:
        """Prompt tokens found for reuse."""
        return self._hits

    @property
    def preemptions(self) -> int:
        """Times a running sequence was put back for want of memory."""
        return self._preemptions

    @property
    def made_way(self) -> int:
        """Times a running sequence was put back for another share's."""
        return self._made_way

    def _grow(self) -> bool:
        """A page for each sequence that has outgrown its own, oldest first; whether any had to make room."""
        rows, before = self._rows, self._preemptions
        for ticket in list(self._running):
            sequence = ticket.sequence
            if sequence.row < 0:
                continue
            row = rows[sequence.row]
            if len(sequence.tokens) <= row.pages * PAGE:
                continue
            while not rows.free and sequence.row >= 0:
                if not rows.evict():
                    self._preempt(self._parts.youngest())
            if sequence.row >= 0:
                rows.resize(row, pages_of(len(sequence.tokens)))
        return self._preemptions > before

    def _make_way(self) -> None:
        """Put one back for the share that is next, if it has less than its part and another has more.

        One in each step: the streams of a crowd pause one after another.
        """
        self._aside = None
        newcomer = next(self._waiting_in_order(), None)
        if newcomer is None:
            return
        memory = len(self._running) < self.limits.max_num_seqs
        if memory and self._headroom.fits(newcomer, self._running):
            return
        need = self._headroom.need(newcomer, self._running)
        ticket = self._parts.in_the_way(newcomer, need, memory=memory)
        if ticket is not None:
            self._aside = ticket
            ticket.made_way = True
            self._made_way += 1
            self._put_back(ticket)

    def _preempt(self, ticket: Ticket) -> None:
        ticket.preempted += 1
        self._preemptions += 1
        self._put_back(ticket)

    def _put_back(self, ticket: Ticket) -> None:
        self._leave(ticket)
        ticket.sequence.state = SequenceState.WAITING
        self._waiting.put_back(ticket)

    def _waiting_in_order(self) -> Iterator[Ticket]:
        if not self._waiting:
            return iter(())
        return self._waiting.in_order(DEPTH, self._parts.held, self._parts.part)

    def _leave(self, ticket: Ticket, *, reuse: bool = True) -> None:
        """Take a running sequence from its row, and give back what it paid for prompt not computed."""
        sequence = ticket.sequence
        ticket.reached = max(ticket.reached, sequence.computed)
        ticket.unpaid = max(0, sequence.prompt_length - ticket.reached)
        self._waiting.charge(ticket.share, -PROMPT_PRICE * ticket.unpaid)
        keep = reuse and self.limits.prefix_caching and sequence.computed >= LEAST_SHARED
        self._rows.leave(self._rows[sequence.row], keep=keep)
        sequence.computed = 0
        self._running.remove(ticket)
        self._parts.held[ticket.share] -= 1

    def _close(self, ticket: Ticket) -> Sequence:
        ticket.sequence.state = SequenceState.FINISHED
        del self._tickets[ticket.sequence.request.request_id]
        return ticket.sequence

    def _ticket(self, sequence: Sequence) -> Ticket:
        ticket = self._tickets.get(sequence.request.request_id)
        if ticket is None or ticket.sequence is not sequence or sequence.state is not SequenceState.RUNNING:
            raise ValueError(f"request {sequence.request.request_id!r} is not running")
        return ticket

    def _fill(self, batch: Batch, now: float, *, newcomers: bool) -> bool:
        """Share the step's tokens out to prompts, one share's after another's; whether any joined."""
        begun = [self._tickets[sequence.request.request_id] for sequence in batch.prompts]
        ahead = self._turns.begin(begun, self._waiting.counts().keys() if newcomers else ())
        joined = bool(ahead) and self._admit(batch, now, ahead)
        for ticket in begun:
            batch.add(ticket.sequence)
        return (newcomers and self._admit(batch, now)) or joined

    def _admit(self, batch: Batch, now: float, only: Container[Share] | None = None) -> bool:
        """Let newcomers join while sequences, tokens and memory allow; whether any did.

        One that cannot even be weighed leaves with its fault, and holds up nobody.
        """
        joined = False
        while batch.budget > 0 and len(self._running) < self.limits.max_num_seqs:
            self._considered = None
            try:
                if not self._admit_next(batch, now, only):
                    break
                joined = True
            except Exception as error:
                if self._considered is None:
                    raise
                self._expel(self._considered)
                self._faults.append((self._considered.sequence, error))
        return joined

    def _admit_next(self, batch: Batch, now: float, only: Container[Share] | None) -> bool:
        """Let whoever is next join; False where nobody can."""
        found = self._next(only)
        if found is None:
            return False
        ticket, match, shared = found
        sequence = ticket.sequence
        room = self._headroom.room(ticket, self._running)
        if not batch.worthwhile(len(sequence.tokens) - shared):
            return False
        if not self._placement.place(sequence, key_of(sequence), match, shared, room):
            return False
        self._join(ticket, now)
        batch.add(sequence)
        return True

    def _expel(self, ticket: Ticket) -> None:
        """Drop a newcomer, however far its admission came."""
        if ticket in self._running:
            self._leave(ticket, reuse=False)
        else:
            if ticket.sequence.row >= 0:
                self._rows.leave(self._rows[ticket.sequence.row], keep=False)
            self._waiting.remove(ticket)
        self._close(ticket)

    def _join(self, ticket: Ticket, now: float) -> None:
        sequence, shared = ticket.sequence, ticket.sequence.computed
        self._waiting.remove(ticket)
        insort(self._running, ticket, key=_age)
        self._parts.held[ticket.share] += 1
        sequence.state = SequenceState.RUNNING
        ticket.leader = None
        if sequence.scheduled is None:
            sequence.scheduled = now
            sequence.cached = min(shared, sequence.prompt_length)
            self._queries += sequence.prompt_length
            self._hits += sequence.cached
        owed = min(ticket.unpaid, max(0, sequence.prompt_length - shared))
        self._waiting.charge(ticket.share, PROMPT_PRICE * owed)
        ticket.unpaid = 0
        if ticket.made_way:
            ticket.made_way = False
            self._parts.pay(max(0, ticket.reached - shared))

    def _next(self, only: Container[Share] | None) -> tuple[Ticket, KvRow | None, int] | None:
        """Whom to admit, with the prefix it can use; None where memory is short for whoever is next.

        Those who had better wait for a prefix are passed over, but none for being large: it would starve.
        """
        for ticket in self._waiting_in_order():
            if ticket is self._aside or (only is not None and ticket.share not in only):
                continue
            self._considered = ticket
            if len(self._running) + self._parts.kept_from(ticket.share) >= self.limits.max_num_seqs:
                return None
            if not self._headroom.fits(ticket, self._running):
                return None
            match, shared = self._placement.match(ticket.sequence, key_of(ticket.sequence))
            self._placement.follow(ticket, key_of(ticket.sequence), shared, self._running)
            if not ticket.held:
                return ticket, match, shared
        return None


def _row(sequence: Sequence) -> int:
    return sequence.row


def _age(ticket: Ticket) -> int:
    return ticket.order
