"""Decides in which KV cache slot (row) a sequence runs, which cached prefix it reuses, and when it moves to
another slot.

A decode run computes every slot up to the highest slot that decodes. In each step, an unused slot among them
costs about as much as copying `IDLE_STEP` tokens of keys and values. So running sequences are kept in the
lowest slots, and cached prefixes in the slots above. Moving a sequence down is nearly always cheaper than
computing unused slots.
"""

from __future__ import annotations

from collections.abc import Iterable

from server.engines.embedded.scheduling.fairness import Ticket
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.prefix import PrefixKey, common, encode_tokens, longest
from server.engines.embedded.scheduling.rows import KvRow, KvRows, pages_of
from server.engines.embedded.scheduling.step import Sequence

LEAST_SHARED = 16
"""Minimum length of a cached prefix in tokens for copying it. A shorter prefix is computed again."""
LEAST_AWAITED = 32
"""Minimum number of tokens that a sequence must save to wait for a prefix that another sequence is
computing.
"""
EXTENDED = 16
"""A cached prefix is reused in its own slot, without a copy, if the new sequence reuses many of its tokens:
at least this many times as many as it has other tokens.
"""
IDLE_STEP = 64
"""Number of tokens whose keys and values can be copied in the time that one unused slot costs in a step; a
low estimate.
"""
EARNED_PER_HIT = 16
"""Credit for copying prefixes, in tokens, that is earned per prompt token found in the prefix cache. See
`Placement._keep`.
"""
EARNED_PER_COMPUTED = 1 / 8
"""Credit for copying prefixes, in tokens, that is earned per computed token, so that prefixes are kept before
any was reused.
"""


class Placement:
    """Assigns KV cache slots to sequences, and plans the copies of cached prefixes between slots."""

    def __init__(self, rows: KvRows, limits: SchedulerLimits) -> None:
        self._rows = rows
        self._caching = limits.prefix_caching
        self._most_credit = 4.0 * limits.context
        self._credit = self._most_credit

    def earn(self, computed: int) -> None:
        """Count computed tokens, which earn credit for copying cached prefixes."""
        self._credit = min(self._most_credit, self._credit + computed * EARNED_PER_COMPUTED)

    def match(self, sequence: Sequence, key: PrefixKey) -> tuple[KvRow | None, int]:
        """Find the KV cache slot that holds the longest prefix of `sequence`. Return the slot and the
        prefix's length in tokens.

        The sequence's last token never counts, since it must be computed. Among equal lengths, finished
        sequences come first, since their slots can be reused without a copy.
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
        """Let a waiting sequence (`ticket`) wait longer if a running sequence is computing a common prefix
        much longer than the `shared` tokens in the cache.
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
        """Give `sequence` a KV cache slot with enough pages. The slot then holds the first `shared` tokens
        of the cached prefix in slot `match`.

        Returns False if no slot or too few pages are free in this step. A slot that has kept more than `room`
        pages from earlier use is released first.
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
        """Choose the KV cache slot to run in: `match` if it is low and can be reused in place, otherwise a
        low slot.
        """
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
        """Copy the cached prefix in slot `row` to a higher slot, unless a more recently used prefix would be
        lost.

        Leaves `reserve` pages of the KV cache free. If another prefix has to be evicted, the copy costs
        credit, and without enough credit it is not made. With `owed`, the copy is made even
        without credit, which becomes negative.
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
        """Move the running sequence in the highest KV cache slot to a lower slot, if copying it costs less
        than computing the unused slots below.
        """
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
        """Choose a free KV cache slot below `top` to move to, preferably an empty one; None if there is no
        free slot.
        """
        lower = [row for row in self._rows.usable() if row.index < top.index]
        return next((row for row in lower if not row.data), lower[0] if lower else None)


def key_of(sequence: Sequence) -> PrefixKey:
    """Return the key of a sequence's prefix in the cache: only sequences with the same adapters and cache
    salt can share it.
    """
    return sequence.request.adapter_mix, sequence.request.cache_salt


def _extends(match: KvRow | None, shared: int) -> bool:
    """Return True if the slot `match` belongs to a finished sequence and nearly all of its tokens (`shared`)
    are reused.
    """
    return match is not None and match.owner is None and EXTENDED * (match.length - shared) <= shared


def _last_use(row: KvRow) -> int:
    return row.used
