"""Plans each engine step: which sequences start, continue, or are preempted.

The engine's loop calls `schedule`, runs the step, and calls `advance`. It then calls `append` for each
sampled token and `finish` for each text that ends. `add` and `cancel` may be called in between, in the same
thread. Imports no tensor library.
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
"""Maximum number of waiting sequences that are considered for each admission."""


class Scheduler:
    """Scheduler for continuous batching, with one KV cache slot per sequence."""

    def __init__(self, limits: SchedulerLimits) -> None:
        self.limits = limits
        self._rows = KvRows(limits.rows, limits.kv_capacity // PAGE)
        self._placement = Placement(self._rows, limits)
        self._headroom = Headroom(self._rows, limits.context)
        self._waiting = FairQueue[Ticket]()
        self._running: list[Ticket] = []
        """Running sequences, oldest first."""
        self._turns = PromptTurns()
        self._parts = Parts(limits, self._rows, self._waiting, self._running)
        self._tickets: dict[str, Ticket] = {}
        self._order = self._number = 0
        self._considered: Ticket | None = None
        """The waiting sequence being admitted, which fails if its admission raises an error."""
        self._aside: Ticket | None = None
        """The sequence preempted in this step for another client. It cannot rejoin in the same step."""
        self._faults: list[tuple[Sequence, Exception]] = []
        self._queries = self._hits = self._preemptions = self._made_way = 0

    def add(self, sequence: Sequence) -> None:
        """Queue a sequence. Raises `ValueError` if it can never fit, or if its request id is in use."""
        request = sequence.request
        total = len(request.prompt) + request.sampling.max_tokens
        if total > self.limits.context:
            raise ValueError(
                f"the prompt and max_tokens are {total} tokens together, but the context length is "
                f"{self.limits.context}; shorten the prompt, or lower max_tokens"
            )
        if pages_of(total) > self._rows.capacity:
            raise ValueError(
                f"the prompt and max_tokens are {total} tokens together, but the KV cache holds only "
                f"{self._rows.capacity * PAGE}; lower max_tokens, or raise kv_cache_memory"
            )
        if not request.prompt:
            raise ValueError("the prompt is empty; it must have at least one token")
        if request.request_id in self._tickets:
            raise ValueError(f"request_id {request.request_id!r} belongs to a live request; use a unique id")
        self._order += 1
        ticket = Ticket(sequence, self._order, len(request.prompt), request.fair_share)
        self._tickets[request.request_id] = ticket
        self._waiting.add(ticket)
        self._parts.seats.come(ticket.share)

    def cancel(self, request_id: str, *, reuse: bool = True) -> Sequence | None:
        """Drop a waiting or running sequence and return it; None if no request has this id.

        Its computed tokens stay as a cached prefix, unless `reuse` is false (for failed sequences).
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
        """End a running sequence and cache its prefix. Raises `ValueError` if the sequence is not running."""
        ticket = self._ticket(sequence)
        self._leave(ticket)
        self._close(ticket)
        self._parts.seats.leave(ticket.share, self._number)

    def schedule(self) -> Step:
        """Plan the next step: grow and preempt sequences, add prompts, admit waiting sequences, move slots.

        Release the KV cache slots in `released` before the step's other work, so that the KV budget is kept.
        An empty step releases nothing: slots emptied meanwhile are released with the next step.
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
        """Record that `step` has run. Sequences that were dropped in the meantime are ignored."""
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
        """Append a sampled token to a running sequence. Raises `ValueError` if it cannot take a token."""
        if sequence.row < 0 or sequence.computed != len(sequence.tokens):
            raise ValueError(
                f"request {sequence.request.request_id!r} cannot get a token: it is {sequence.state.value}, "
                f"and {sequence.computed} of its {len(sequence.tokens)} tokens are in the KV cache"
            )
        request = sequence.request
        if sequence.generated >= request.sampling.max_tokens:
            raise ValueError(
                f"request {request.request_id!r} has generated all of its max_tokens, "
                f"{request.sampling.max_tokens}"
            )
        sequence.tokens.append(token)
        self._waiting.charge(self._tickets[request.request_id].share, OUTPUT_PRICE)

    def forget(self, digest: str) -> None:
        """Drop the cached prefixes that use this adapter, and the fairness counters of its idle clients."""
        for row in self._rows.cached():
            if row.key is not None and any(name == digest for name, _ in row.key[0]):
                self._rows.empty(row)
        for share in self._waiting.known():
            if share.adapter == digest and not self._parts.held[share]:
                self._waiting.forget(share)

    def lend(self, count: int) -> list[int]:
        """Empty up to `count` KV cache slots, for use before the next `schedule`. Return them, ascending.

        If too few slots are free, running sequences are preempted.
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
        """True if no sequence runs or waits."""
        return not self._tickets

    @property
    def running_by_share(self) -> Mapping[str, int]:
        """Number of running sequences of each adapter."""
        return by_adapter(self._parts.held)

    @property
    def waiting_by_share(self) -> Mapping[str, int]:
        """Number of waiting sequences of each adapter."""
        return by_adapter(self._waiting.counts())

    @property
    def num_waiting(self) -> int:
        """Total number of waiting sequences."""
        return len(self._tickets) - len(self._running)

    @property
    def kv_tokens(self) -> int:
        """Tokens of KV cache in use, including cached prefixes, in whole pages."""
        return self._rows.pages * PAGE

    @property
    def kv_cached(self) -> int:
        """Tokens of KV cache (part of `kv_tokens`) that hold only cached prefixes."""
        return self._rows.cached_pages * PAGE

    @property
    def kv_capacity(self) -> int:
        """Tokens that the KV cache budget holds, in whole pages."""
        return self._rows.capacity * PAGE

    @property
    def prefix_queries(self) -> int:
        """Total number of prompt tokens looked up in the prefix cache."""
        return self._queries

    @property
    def prefix_hits(self) -> int:
        """Total number of prompt tokens found in the prefix cache."""
        return self._hits

    @property
    def preemptions(self) -> int:
        """Number of preemptions because the KV cache was full."""
        return self._preemptions

    @property
    def made_way(self) -> int:
        """Number of preemptions in favour of another client (API key and adapter)."""
        return self._made_way

    def _grow(self) -> bool:
        """Add KV cache pages to sequences that lack them, oldest first. True if one was preempted."""
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
        """Preempt a sequence of a client above its fair part if the next waiting client is below its own.

        At most one sequence in each step, so that not all streams of a client pause at once.
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
        """Stop a sequence and free its slot. Its client is not charged for uncomputed prompt tokens."""
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
            raise ValueError(
                f"request {sequence.request.request_id!r} is not running, so it cannot be finished"
            )
        return ticket

    def _fill(self, batch: Batch, now: float, *, newcomers: bool) -> bool:
        """Fill the step with prompt tokens, one client after another. True if a sequence was admitted."""
        begun = [self._tickets[sequence.request.request_id] for sequence in batch.prompts]
        ahead = self._turns.begin(begun, self._waiting.counts().keys() if newcomers else ())
        joined = bool(ahead) and self._admit(batch, now, ahead)
        for ticket in begun:
            batch.add(ticket.sequence)
        return (newcomers and self._admit(batch, now)) or joined

    def _admit(self, batch: Batch, now: float, only: Container[Share] | None = None) -> bool:
        """Admit waiting sequences while slots, tokens and memory allow. Return True if any was admitted.

        If admitting a sequence raises an error, it is dropped, so that it does not block others.
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
        """Admit the next waiting sequence. Return False if none can be admitted."""
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
        """Drop a sequence whose admission failed, whether it is running or waiting."""
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
        """Choose the next sequence to admit. Return it, the slot with its prefix, and the prefix length.

        Sequences that wait for another's prefix are skipped. Returns None if the next one does not fit in
        memory: smaller ones must not overtake it, or it would starve.
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
