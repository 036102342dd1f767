"""Where a sequence runs, what it takes over from others, and when rows are moved.

A decode run computes every row up to the highest that decodes, so an idle row among them costs about as
much, each step, as copying `IDLE_STEP` tokens of keys and values. Hence running sequences belong in the
lowest rows, prefixes kept for reuse above them, and a copy is nearly always cheaper than a longer span.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.fairness import Ticket
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.prefix import PrefixKey, common, encode_tokens, longest
from server.engines.embedded.scheduling.rows import KvRow, KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence

LEAST_SHARED = 16
"""Tokens in common below which a prefix is computed again rather than copied."""
LEAST_AWAITED = 32
"""Tokens that waiting for another's prefix must save."""
EXTENDED = 16
"""How much longer what is shared must be than what is lost, for a kept prefix to be taken over in place."""
IDLE_STEP = 64
"""Tokens of keys and values that are copied in the time that one idle row costs a step; a low estimate."""
EARNED_PER_HIT = 16
"""Tokens that may be copied to keep prefixes in place of others for each prompt token that one saved."""
EARNED_PER_COMPUTED = 1 / 8
"""The same for each token computed: lets a few prefixes be kept where none has been of use yet."""


class Placement:
    """Decides on rows and copies for one scheduler."""

    def __init__(self, rows: KvRows, limits: SchedulerLimits) -> None:
        self._rows = rows
        self._caching = limits.prefix_caching
        self._most_credit = 4.0 * limits.context
        self._credit = self._most_credit

    def earn(self, computed: int) -> None:
        """Count work done, of which copies for keeping prefixes may be a small part."""
        self._credit = min(self._most_credit, self._credit + computed * EARNED_PER_COMPUTED)

    def match(self, sequence: Sequence, key: PrefixKey) -> tuple[KvRow | None, int]:
        """The row with the longest prefix that `sequence` can use, and its length; never the whole of it.

        A finished sequence's row before a running one's of the same length, since it need not be copied.
        """
        if not self._caching or sequence.request.sampling.prompt_logprobs is not None:
            return None, 0
        wanted = encode_tokens(sequence.tokens[:-1])
        running = self._rows.running()
        for row in running:
            if row.key == key:
                row.sync()
        return longest([*self._rows.cached(), *running], key, wanted, LEAST_SHARED)

    def follow(self, ticket: Ticket, key: PrefixKey, shared: int, running: Iterable[Ticket]) -> None:
        """Have `ticket` wait if one of `running` is computing much more of its prompt than `shared`."""
        ticket.leader = None
        sequence = ticket.sequence
        if not self._caching or sequence.request.sampling.prompt_logprobs is not None:
            return
        for other in running:
            leader = other.sequence
            if len(leader.tokens) - leader.computed > LEAST_AWAITED and key_of(leader) == key:
                reach = common(encode_tokens(leader.tokens), encode_tokens(sequence.tokens[:-1]))
                if reach - max(shared, leader.computed) >= LEAST_AWAITED:
                    ticket.leader, ticket.awaited = leader, reach
                    return

    def place(self, sequence: Sequence, key: PrefixKey, match: KvRow | None, shared: int, room: int) -> bool:
        """Give `sequence` a row, its pages and what it shares; False where this step cannot.

        A row that has more than `room` pages from earlier use is given back first.
        """
        rows = self._rows
        target = self._target(match, shared)
        if target is None:
            return False
        need = pages_of(len(sequence.tokens))
        while rows.free < need - target.pages:
            if rows.evict(target, match):
                continue
            if match is None or match.owner is not None or match is target:
                return False
            target = match
        if target.data and not (target is match and _extends(match, shared)):
            self._keep(target, match, reserve=max(0, need - target.pages))
        if target is not match and target.pages > room:
            rows.release(target)
        if match is None:
            shared = 0
        elif match.owner is None:
            self._credit = min(self._most_credit, self._credit + shared * EARNED_PER_HIT)
            rows.touch(match)
        if match is not None and match is not target:
            rows.copy(match, target, shared)
            if _extends(match, shared):
                rows.empty(match)
        rows.take(target, sequence, shared, key)
        return True

    def _target(self, match: KvRow | None, shared: int) -> KvRow | None:
        """The row to run in: the match itself where it lies low, or a low one."""
        usable = list(self._rows.usable())
        if not usable:
            return None
        running = self._rows.running()
        span = running[-1].index + 1 if running else 0
        if _extends(match, shared) and match is not None and match.index <= max(span, usable[0].index):
            return match
        for row in usable:
            if row.index >= span:
                break
            if not row.data:
                return row
        return usable[0]

    def _keep(self, row: KvRow, *spared: KvRow | None, reserve: int, owed: bool = False) -> None:
        """Copy what `row` holds to a higher row, if no more recent prefix is lost by it.

        Leaves `reserve` pages free. Costs credit where another prefix makes room, a debt where `owed`.
        """
        rows, length = self._rows, row.length
        higher = [r for r in rows.usable() if r.index > row.index and r not in spared]
        refuge = next((r for r in reversed(higher) if not r.data), None)
        if refuge is None and higher:
            refuge = min(higher, key=_last_use)
        if refuge is None or refuge.used > row.used:
            return
        more = pages_of(length) - refuge.pages + reserve
        if refuge.data or rows.free < more:
            if self._credit < length and not owed:
                return
            self._credit -= length
        while rows.free < more:
            if not rows.evict(row, refuge, *spared, before=row.used):
                return
        rows.copy(row, refuge, length)

    def compact(self) -> None:
        """Bring the highest running sequence down where idle rows below it cost more than its copy."""
        rows = self._rows
        running = rows.running()
        if not running:
            return
        top, idle = running[-1], running[-1].index + 1 - len(running)
        if idle <= len(running) // 4:
            return
        sequence = top.owner
        assert sequence is not None
        remaining = sequence.request.sampling.max_tokens - sequence.generated
        saved = top.index - (running[-2].index if len(running) > 1 else 0)
        if sequence.computed > IDLE_STEP * remaining * saved:
            return
        target = self._lowest(top)
        if target is None:
            return
        extra = max(0, pages_of(len(sequence.tokens)) - target.pages)
        while rows.free < extra:
            if not rows.evict(target):
                return
        if target.data:
            self._keep(target, reserve=extra, owed=True)
        if target.pages > pages_of(len(sequence.tokens)):
            rows.release(target)
        rows.move(top, target)

    def _lowest(self, top: KvRow) -> KvRow | None:
        """The row below `top` to move to: one that holds nothing before one that does."""
        lower = [row for row in self._rows.usable() if row.index < top.index]
        return next((row for row in lower if not row.data), lower[0] if lower else None)


def key_of(sequence: Sequence) -> PrefixKey:
    """Whose keys and values a sequence can use and leaves."""
    return sequence.request.adapter_mix, sequence.request.cache_salt


def _extends(match: KvRow | None, shared: int) -> bool:
    """Whether a sequence that shares so much carries on nearly all of what a finished one left."""
    return match is not None and match.owner is None and EXTENDED * (match.length - shared) <= shared


def _last_use(row: KvRow) -> int:
    return row.used
