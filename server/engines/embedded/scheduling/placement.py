"""Decides in which row a sequence runs, which prefix it reuses, and when a sequence moves to another row.

A decode run computes every row up to the highest one that decodes. In each step, an idle row among them costs
about as much as copying `IDLE_STEP` tokens of keys and values. So running sequences are kept in the lowest
rows, and cached prefixes in rows above them. Moving a sequence down is nearly always cheaper than computing
idle rows.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.fairness import Ticket
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.prefix import PrefixKey, common, encode_tokens, longest
from server.engines.embedded.scheduling.rows import KvRow, KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence

LEAST_SHARED = 16
"""Minimum length of a common prefix for copying it; a shorter one is computed again."""
LEAST_AWAITED = 32
"""Minimum tokens that waiting for another sequence's prefix must save."""
EXTENDED = 16
"""A cached prefix is reused in its own row, without a copy, if its shared part is at least this many times as
long as the rest.
"""
IDLE_STEP = 64
"""Tokens of keys and values that can be copied in the time of one idle row in a step; a low estimate."""
EARNED_PER_HIT = 16
"""Copy credit in tokens for each prompt token that a cached prefix saved. See `Placement._keep`."""
EARNED_PER_COMPUTED = 1 / 8
"""Copy credit in tokens per computed token, so that prefixes are kept before any has been reused."""


class Placement:
    """Assigns rows to sequences and plans copies, for one scheduler."""

    def __init__(self, rows: KvRows, limits: SchedulerLimits) -> None:
        self._rows = rows
        self._caching = limits.prefix_caching
        self._most_credit = 4.0 * limits.context
        self._credit = self._most_credit

    def earn(self, computed: int) -> None:
        """Count computed tokens, which earn credit for copying prefixes."""
        self._credit = min(self._most_credit, self._credit + computed * EARNED_PER_COMPUTED)

    def match(self, sequence: Sequence, key: PrefixKey) -> tuple[KvRow | None, int]:
        """Find the row with the longest prefix of `sequence`. Return the row and the prefix's length.

        The last token never counts, since it must be computed. Among equal lengths, rows of finished
        sequences come first, since they can be reused without a copy.
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
        """Let `ticket` wait if a running sequence computes a much longer part of the same prompt than
        `shared`.
        """
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
        """Give `sequence` a row with pages and the first `shared` tokens of `match`.

        Returns False if no row or too few pages are free in this step. A row that has more than `room` pages
        from earlier use is released first.
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
        """Choose the row to run in: `match` if it is low and can be reused in place, or else a low row."""
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
        """Copy the prefix in `row` to a higher row, unless a more recently used prefix would be lost.

        Leaves `reserve` pages free. If another prefix has to be evicted, the copy costs credit, and is
        skipped without credit. With `owed`, it is made even then, and the credit becomes negative.
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
        """Move the highest running sequence to a lower row if that costs less than the idle rows below it."""
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
        """Choose a free row below `top` to move to; prefer an empty one. None if there is none."""
        lower = [row for row in self._rows.usable() if row.index < top.index]
        return next((row for row in lower if not row.data), lower[0] if lower else None)


def key_of(sequence: Sequence) -> PrefixKey:
    """Return the key of a sequence's prefix: only sequences with the same key can share it."""
    return sequence.request.adapter_mix, sequence.request.cache_salt


def _extends(match: KvRow | None, shared: int) -> bool:
    """Return True if `match` is a finished sequence's row and nearly all of its tokens are shared."""
    return match is not None and match.owner is None and EXTENDED * (match.length - shared) <= shared


def _last_use(row: KvRow) -> int:
    return row.used
