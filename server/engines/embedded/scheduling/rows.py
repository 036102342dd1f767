"""Tracks the rows of the KV memory: the owner and contents of each row, and the pages that it uses.

A row belongs to a running sequence, or holds a finished sequence's tokens for reuse, or is empty. Its pages
count as used until the row is released, since a runner can only free whole rows.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from server.engines.embedded.scheduling.limits import PAGE
from server.engines.embedded.scheduling.prefix import WIDTH, PrefixKey, encode_tokens
from server.engines.embedded.scheduling.step import RowCopy, Sequence


def pages_of(tokens: int) -> int:
    """Return the number of pages for this many tokens."""
    return -(-tokens // PAGE)


@dataclass(slots=True, eq=False)
class KvRow:
    """One row of the KV memory, which holds one sequence."""

    index: int
    pages: int = 0
    """Pages that count as used: reserved by its sequence, or the most it held since its last release."""
    floor: int = 0
    """Number of these pages that were in use already when the sequence in the row took it."""
    owner: Sequence | None = None
    key: PrefixKey | None = None
    """Adapter mix and cache salt of its tokens; None if the row is empty."""
    data: bytes = b""
    """Encoded tokens whose keys and values the row holds. If it has an owner, as of the last `sync`."""
    used: int = 0
    """Logical time of its last use. The row with the lowest is evicted first."""

    @property
    def length(self) -> int:
        """Number of tokens in `data`."""
        return len(self.data) // WIDTH

    def sync(self) -> None:
        """Update `data` to all tokens that the owner has computed."""
        owner, known = self.owner, self.length
        if owner is not None and known < owner.computed:
            self.data += encode_tokens(owner.tokens[known : owner.computed])


class KvRows:
    """All rows with their budget of pages, and the copies and releases of the step being planned."""

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
        """Number of free pages of the KV cache."""
        return self.capacity - self.pages

    @property
    def cached_pages(self) -> int:
        """Pages of rows without an owner, which can be freed on demand."""
        return sum(row.pages for row in self.all if row.owner is None)

    def usable(self) -> Iterator[KvRow]:
        """List rows without an owner, lowest first."""
        return (row for row in self.all if row.owner is None)

    def cached(self) -> list[KvRow]:
        """List rows that hold a finished sequence's tokens, lowest first."""
        return [row for row in self.all if row.owner is None and row.data]

    def running(self) -> list[KvRow]:
        """List rows that a running sequence owns, lowest first."""
        return [row for row in self.all if row.owner is not None]

    def touch(self, row: KvRow) -> None:
        """Mark a row as just used."""
        self._clock += 1
        row.used = self._clock

    def take(self, row: KvRow, sequence: Sequence, shared: int, key: PrefixKey) -> None:
        """Give a row to a sequence whose first `shared` tokens it holds, with pages for all its tokens."""
        assert row.owner is None
        row.owner, row.key, row.floor = sequence, key, row.pages
        row.data = row.data[: shared * WIDTH]
        self._emptied.discard(row.index)
        self.resize(row, max(row.pages, pages_of(len(sequence.tokens))))
        sequence.row, sequence.computed = row.index, shared

    def leave(self, row: KvRow, *, keep: bool) -> None:
        """Take a row from its sequence. With `keep`, keep the computed tokens as a prefix for reuse;
        otherwise drop them.
        """
        assert row.owner is not None
        row.sync()
        self.resize(row, max(row.floor, pages_of(row.owner.computed)))
        row.owner.row, row.owner = -1, None
        self.touch(row)
        if not keep:
            self.empty(row)

    def move(self, source: KvRow, target: KvRow) -> None:
        """Move a running sequence to another row, and empty the source row."""
        sequence, key = source.owner, source.key
        assert sequence is not None
        assert key is not None
        shared = sequence.computed
        self.copy(source, target, shared)
        self.leave(source, keep=False)
        self.take(target, sequence, shared, key)

    def copy(self, source: KvRow, target: KvRow, length: int) -> None:
        """Copy a prefix into a row without an owner, and count its pages as used."""
        assert target.owner is None
        assert source is not target
        source.sync()
        self._copies.append(RowCopy(source.index, target.index, length))
        self._busy.update((source.index, target.index))
        self._emptied.discard(target.index)
        target.key, target.data, target.used = source.key, source.data[: length * WIDTH], source.used
        self.resize(target, max(target.pages, pages_of(length)))

    def empty(self, row: KvRow) -> None:
        """Drop the contents of a row without an owner. It is released unless this step uses it again."""
        row.key, row.data, row.used = None, b"", 0
        if row.pages:
            self._emptied.add(row.index)

    def resize(self, row: KvRow, pages: int) -> None:
        """Set the number of pages that a row counts as using."""
        self.pages += pages - row.pages
        row.pages = pages

    def evict(self, *spared: KvRow | None, before: int | None = None) -> bool:
        """Release the least recently used row without an owner. Return False if there is none.

        Does not release the rows in `spared`, rows used after the time `before`, or rows that the planned
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
        """Free a row's memory before the step's other work. Return False if the step copies the row."""
        if row.index in self._busy:
            return False
        self.empty(row)
        self.resize(row, 0)
        row.floor = 0
        self._emptied.discard(row.index)
        self._released.add(row.index)
        return True

    def flush(self) -> tuple[list[RowCopy], tuple[int, ...]]:
        """Finish planning the step. Return its copies in order, and the rows to release before them."""
        for index in self._emptied - self._busy:
            self.release(self.all[index])
        copies, released = self._copies, tuple(sorted(self._released))
        self._copies = []
        self._busy.clear()
        self._released.clear()
        return copies, released
