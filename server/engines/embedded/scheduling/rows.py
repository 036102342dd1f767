"""Tracks the slots (rows) of the KV cache: the owner and tokens of each slot, and the pages that it uses.

A slot belongs to a running sequence, holds a finished sequence's tokens for reuse, or is empty. Its pages
count as used until the slot is released, since a runner can only free whole slots.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from server.engines.embedded.scheduling.limits import PAGE
from server.engines.embedded.scheduling.prefix import WIDTH, PrefixKey, encode_tokens
from server.engines.embedded.scheduling.step import RowCopy, Sequence


def pages_of(tokens: int) -> int:
    """Return the number of KV cache pages that `tokens` tokens take."""
    return -(-tokens // PAGE)


@dataclass(slots=True, eq=False)
class KvRow:
    """A slot of the KV cache, which holds the keys and values of one sequence."""

    index: int
    pages: int = 0
    """Number of KV cache pages that count as used by this slot: those reserved for its sequence or, if more,
    the most that the slot has held since it was last released.
    """
    floor: int = 0
    """Number of the slot's pages that were in use already when its current sequence took the slot."""
    owner: Sequence | None = None
    key: PrefixKey | None = None
    """Adapters and cache salt of the tokens in the slot; None if the slot is empty."""
    data: bytes = b""
    """The tokens whose keys and values the slot holds, encoded as 8 bytes each. For a running sequence, as of
    the last call of `sync`.
    """
    used: int = 0
    """Logical time at which the slot was last used. The slot with the lowest value is evicted first."""

    @property
    def length(self) -> int:
        """Number of tokens encoded in `data`."""
        return len(self.data) // WIDTH

    def sync(self) -> None:
        """Bring `data` up to date with all tokens that the slot's running sequence has computed."""
        owner, known = self.owner, self.length
        if owner is not None and known < owner.computed:
            self.data += encode_tokens(owner.tokens[known : owner.computed])


class KvRows:
    """All KV cache slots with their page budget, and the copies and releases that the planned step will
    make.
    """

    def __init__(self, count: int, pages: int) -> None:
        self.all = [KvRow(index) for index in range(count)]
        self.capacity = pages
        self.pages = 0
        self._clock = 0
        self._copies: list[RowCopy] = []
        self._busy: set[int] = set()
        self._released: set[int] = set()
        self._emptied: set[int] = set()

    def __getitem__(self, index: int) -> KvRow:
        return self.all[index]

    @property
    def free(self) -> int:
        """Number of free pages in the KV cache."""
        return self.capacity - self.pages

    @property
    def cached_pages(self) -> int:
        """Number of KV cache pages in slots without a running sequence. They can be freed on demand."""
        return sum(row.pages for row in self.all if row.owner is None)

    def usable(self) -> Iterator[KvRow]:
        """Yield the KV cache slots without a running sequence, lowest first."""
        return (row for row in self.all if row.owner is None)

    def cached(self) -> list[KvRow]:
        """Return the KV cache slots that hold a finished sequence's tokens, lowest first."""
        return [row for row in self.all if row.owner is None and row.data]

    def running(self) -> list[KvRow]:
        """Return the KV cache slots that belong to a running sequence, lowest first."""
        return [row for row in self.all if row.owner is not None]

    def touch(self, row: KvRow) -> None:
        """Mark a KV cache slot as just used, so that it is evicted last."""
        self._clock += 1
        row.used = self._clock

    def take(self, row: KvRow, sequence: Sequence, shared: int, key: PrefixKey) -> None:
        """Give a KV cache slot that holds a sequence's first `shared` tokens to this sequence, with pages for
        all its tokens.
        """
        assert row.owner is None
        row.owner, row.key, row.floor = sequence, key, row.pages
        row.data = row.data[: shared * WIDTH]
        self._emptied.discard(row.index)
        self.resize(row, max(row.pages, pages_of(len(sequence.tokens))))
        sequence.row, sequence.computed = row.index, shared

    def leave(self, row: KvRow, *, keep: bool) -> None:
        """Take a KV cache slot from its running sequence.

        With `keep`, the computed tokens stay as a cached prefix; otherwise they are dropped.
        """
        assert row.owner is not None
        row.sync()
        self.resize(row, max(row.floor, pages_of(row.owner.computed)))
        row.owner.row, row.owner = -1, None
        self.touch(row)
        if not keep:
            self.empty(row)

    def move(self, source: KvRow, target: KvRow) -> None:
        """Move a running sequence to another KV cache slot, and empty the slot `source`."""
        sequence, key = source.owner, source.key
        assert sequence is not None
        assert key is not None
        shared = sequence.computed
        self.copy(source, target, shared)
        self.leave(source, keep=False)
        self.take(target, sequence, shared, key)

    def copy(self, source: KvRow, target: KvRow, length: int) -> None:
        """Plan the copy of a prefix into a KV cache slot without a running sequence, and count its pages as
        used.
        """
        assert target.owner is None
        assert source is not target
        source.sync()
        self._copies.append(RowCopy(source.index, target.index, length))
        self._busy.update((source.index, target.index))
        self._emptied.discard(target.index)
        target.key, target.data, target.used = source.key, source.data[: length * WIDTH], source.used
        self.resize(target, max(target.pages, pages_of(length)))

    def empty(self, row: KvRow) -> None:
        """Drop the tokens of a KV cache slot without a running sequence.

        Its memory is released unless this step uses the slot again.
        """
        row.key, row.data, row.used = None, b"", 0
        if row.pages:
            self._emptied.add(row.index)

    def resize(self, row: KvRow, pages: int) -> None:
        """Set the number of KV cache pages that count as used by a slot."""
        self.pages += pages - row.pages
        row.pages = pages

    def evict(self, *spared: KvRow | None, before: int | None = None) -> bool:
        """Release the least recently used KV cache slot without a running sequence. Return False if there is
        no such slot.

        Does not release the slots in `spared`, slots used after the time `before`, or slots that the planned
        step copies.
        """
        victims = [r for r in self.usable() if r.pages and r.index not in self._busy and r not in spared]
        if not victims:
            return False
        row = min(victims, key=lambda r: r.used)
        if before is not None and row.used > before:
            return False
        self.release(row)
        return True

    def release(self, row: KvRow) -> bool:
        """Free a KV cache slot's memory before the other work of the step.

        Return False if the step copies the slot.
        """
        if row.index in self._busy:
            return False
        self.empty(row)
        self.resize(row, 0)
        row.floor = 0
        self._emptied.discard(row.index)
        self._released.add(row.index)
        return True

    def flush(self) -> tuple[list[RowCopy], tuple[int, ...]]:
        """Finish planning the step.

        Return its copies in order, and the KV cache slots to release before them.
        """
        for index in self._emptied - self._busy:
            self.release(self.all[index])
        copies, released = self._copies, tuple(sorted(self._released))
        self._copies = []
        self._busy.clear()
        self._released.clear()
        return copies, released
