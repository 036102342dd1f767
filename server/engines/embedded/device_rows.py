"""Rows of keys and values on a device: those that decode sit together, the others stand alone.

A device runs fixed shapes and takes no part of a value, so a row is either *parked* in a block of its own,
where a prompt is computed, or *seated* in the one block whose rows decode together. Blocks come in the sizes
of `buckets` and grow when a row does; their contents are copied over on the device. A run reads one block
and fills another: the seated block has a spare of its own, parked blocks share one for each size.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from server.engines.embedded.buckets import memories, memory_for, seats_for
from server.engines.embedded.device_memory import Block, DeviceMemory

SHRINK = 4
"""The seated block is made anew once it is so many times as large as it has to be, in rows or positions."""


class DeviceRows:
    """Where each row's keys and values are."""

    def __init__(self, memory: DeviceMemory, lengths: Sequence[int], context: int) -> None:
        """`lengths`: what each row holds, as it is at any time."""
        self._memory, self._lengths, self._count = memory, lengths, len(lengths)
        self._sizes = memories(context)
        self._parked: dict[int, Block] = {}
        self._spare: Block | None = None
        self._seats: list[int | None] = []
        self.pair: tuple[Block, Block] | None = None
        """The seated block, and its spare: what the next run over it reads and fills."""

    def parked(self, row: int, tokens: int) -> tuple[Block, Block]:
        """The block of a row that is to hold `tokens`, and one to fill; call `fill` after the run."""
        positions = memory_for(self._sizes, tokens)
        block = self._leave(row, positions)
        if block is None:
            block = self._memory.zeros(1, positions)
        elif block.positions < positions:
            block = self._memory.take(block, [0], positions)
        self._parked[row] = block
        if self._spare is None or self._spare.positions != block.positions:
            self._spare = None
            self._spare = self._memory.zeros(1, block.positions)
        return block, self._spare

    def fill(self, row: int) -> None:
        """What a run filled holds the row from now on."""
        assert self._spare is not None
        self._parked[row], self._spare = self._spare, self._parked[row]

    def seat(self, rows: Sequence[int], tokens: int) -> list[int]:
        """Seat `rows`, each to hold `tokens` at most; their places in the block of `pair`."""
        assert rows
        self._arrange(rows, memory_for(self._sizes, tokens))
        for row in rows:
            if row not in self._seats:
                self._sit(row, rows)
        return [self._seats.index(row) for row in rows]

    def swap(self) -> None:
        """What a run filled is the seated block from now on."""
        assert self.pair is not None
        self.pair = self.pair[1], self.pair[0]

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Give the target a copy of the source's first positions."""
        self.release(target)
        positions = memory_for(self._sizes, tokens)
        if source in self._parked:
            self._parked[target] = self._memory.take(self._parked[source], [0], positions)
        elif source in self._seats:
            self._parked[target] = self._taken(self._seats.index(source), positions)

    def release(self, row: int) -> None:
        """Forget a row; give its memory back where nothing else lies in it."""
        self._parked.pop(row, None)
        if row in self._seats:
            self._seats[self._seats.index(row)] = None
        if self._seats and not any(seated is not None for seated in self._seats):
            self._seats, self.pair = [], None
        if not self._parked:
            self._spare = None

    def close(self) -> None:
        """Let go of every block."""
        self._parked.clear()
        self._seats, self._spare, self.pair = [], None, None

    def _leave(self, row: int, positions: int) -> Block | None:
        """A row's own block, taken from its seat where it has one; None where it has neither."""
        if row in self._parked:
            return self._parked[row]
        if row not in self._seats:
            return None
        block = self._taken(self._seats.index(row), positions)
        self.release(row)
        return block

    def _taken(self, seat: int, positions: int) -> Block:
        assert self.pair is not None
        return self._memory.take(self.pair[0], [seat], positions)

    def _arrange(self, rows: Sequence[int], positions: int) -> None:
        """Make the seated block anew where it has no place for all of `rows`, or far more than they need."""
        seats = seats_for(len(rows), self._count)
        if self.pair is None:
            self._form(rows[0] if seats == 1 else None, seats, positions)
            return
        block = self.pair[0]
        if len(rows) <= block.rows < SHRINK * seats:
            seats = block.rows
        if positions <= block.positions < SHRINK * positions:
            positions = block.positions
        if (seats, positions) == (block.rows, block.positions):
            return
        if seats < block.rows or positions < block.positions:
            for row in [row for row in self._seats if row is not None and row not in rows]:
                self._park(row)
        if not any(row is not None for row in self._seats):
            self._form(rows[0] if seats == 1 else None, seats, positions)
            return
        kept = [seat for seat, row in enumerate(self._seats) if row is not None]
        filler = [0] * (seats - len(kept))
        made = self._memory.take(block, kept + filler, positions)
        self.pair = None
        self.pair = made, self._memory.zeros(seats, positions)
        self._seats = [*(self._seats[seat] for seat in kept), *(None for _ in filler)]

    def _form(self, alone: int | None, seats: int, positions: int) -> None:
        """Make the seated block of nothing, or of the one row that is to sit in it."""
        self.pair, self._seats = None, [None] * seats
        block = None if alone is None else self._parked.pop(alone, None)
        if block is None:
            block = self._memory.zeros(seats, positions)
        elif block.positions != positions:
            block = self._memory.take(block, [0], positions)
        self.pair = block, self._memory.zeros(seats, positions)
        if alone is not None:
            self._seats = [alone]

    def _park(self, row: int) -> None:
        """Move a seated row to a block of its own."""
        seat = self._seats.index(row)
        self._parked[row] = self._taken(seat, memory_for(self._sizes, self._lengths[row]))
        self._seats[seat] = None

    def _sit(self, row: int, rows: Collection[int]) -> None:
        """Seat a row in a free place, or in that of one that is not among `rows`."""
        assert self.pair is not None
        if None not in self._seats:
            self._park(next(seated for seated in self._seats if seated is not None and seated not in rows))
        seat = self._seats.index(None)
        block, spare = self.pair
        single = self._parked.pop(row, None) or self._memory.zeros(1, block.positions)
        if single.positions != block.positions:
            single = self._memory.take(single, [0], block.positions)
        self._memory.put(block, seat, single, spare)
        self.swap()
        self._seats[seat] = row
