"""Tracks where each sequence's keys and values are on a device. Sequences that decode together share a block
of memory; each other sequence has its own block.

A device runs fixed shapes and cannot use part of an array. So a KV cache slot (row) is either *parked* in its
own block, where its prompt is computed, or *seated* in the one block whose sequences decode together. Blocks
have the sizes of `buckets`. When a sequence outgrows its block, its contents are copied to a larger block on
the device. A run reads one block and writes another, the spare. The seated block has its own spare, and the
parked blocks share one.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from server.engines.embedded.runners.device.binding import DeviceBinding
from server.engines.embedded.runners.device.buckets import memories, memory_for, seats_for
from server.engines.embedded.runners.device.memory import Block, DeviceMemory

SHRINK = 4
"""When the memory block for decoding has this many times the needed slots or positions, it is replaced by a
smaller block.
"""


class SeatedRows:
    """The block of device memory whose sequences decode together, and the spare block that the next decode
    run writes.
    """

    def __init__(self, block: Block, spare: Block, rows: list[int | None]) -> None:
        self.block, self.spare = block, spare
        self.rows = rows
        """The KV cache slot at each position of the block; None for a free position."""
        self.bound: dict[Block, DeviceBinding] = {}
        """Maps each block that is read to the binding that reads this block and writes the other one."""

    def __contains__(self, row: int) -> bool:
        return row in self.rows

    def swap(self) -> None:
        """Swap the memory block for decoding and its spare after a run, so that the next run reads what this
        run wrote.
        """
        self.block, self.spare = self.spare, self.block


class DeviceRows:
    """Tracks which block of device memory holds the keys and values of each KV cache slot."""

    def __init__(self, memory: DeviceMemory, lengths: Sequence[int], context: int) -> None:
        """Start with empty KV cache slots.

        `lengths` is the number of tokens in each slot, which the caller keeps up to date.
        """
        self._memory, self._lengths, self._count = memory, lengths, len(lengths)
        self._sizes = memories(context)
        self._parked: dict[int, Block] = {}
        self._spare: Block | None = None
        self.seated: SeatedRows | None = None

    def park(self, row: int, tokens: int) -> tuple[Block, Block]:
        """Move KV cache slot `row` to a memory block of its own with room for `tokens`, to compute a prompt
        in it.

        Returns the block that the run reads and the block that it writes. Call `fill` after the run.
        """
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
        """After a prefill run, use the memory block that the run wrote for KV cache slot `row`."""
        assert self._spare is not None
        self._parked[row], self._spare = self._spare, self._parked[row]

    def seat(self, rows: Sequence[int], tokens: int) -> SeatedRows:
        """Move the KV cache slots `rows` into the memory block whose sequences decode together.

        Each slot will hold at most `tokens`.
        """
        seated = self._arranged(rows, memory_for(self._sizes, tokens))
        for row in rows:
            if row not in seated:
                self._sit(seated, row, rows)
        return seated

    def copy(self, source: int, target: int, tokens: int) -> None:
        """Copy the first `tokens` positions of KV cache slot `source` to slot `target`, which gets a memory
        block of its own.
        """
        self.release(target)
        positions = memory_for(self._sizes, tokens)
        if source in self._parked:
            self._parked[target] = self._memory.take(self._parked[source], [0], positions)
        elif self.seated is not None and source in self.seated:
            self._parked[target] = self._taken(self.seated, source, positions)

    def release(self, row: int) -> None:
        """Empty KV cache slot `row`, and free its memory block if no other slot uses this block."""
        self._parked.pop(row, None)
        if not self._parked:
            self._spare = None
        if self.seated is not None and row in self.seated:
            self.seated.rows[self.seated.rows.index(row)] = None
            if not any(seated is not None for seated in self.seated.rows):
                self.seated = None

    def close(self) -> None:
        """Free all memory blocks on the device."""
        self._parked.clear()
        self._spare = self.seated = None

    def _leave(self, row: int, positions: int) -> Block | None:
        """Return the memory block that holds only KV cache slot `row`; None if the slot is empty.

        If the slot is in the memory block for decoding, it is first copied to a block of its own.
        """
        if self.seated is not None and row in self.seated:
            block = self._taken(self.seated, row, positions)
            self.release(row)
            return block
        return self._parked.get(row)

    def _taken(self, seated: SeatedRows, row: int, positions: int) -> Block:
        return self._memory.take(seated.block, [seated.rows.index(row)], positions)

    def _arranged(self, rows: Sequence[int], positions: int) -> SeatedRows:
        """Return the memory block whose sequences decode together.

        It is rebuilt if it is too small for the slots `rows`, or much larger than needed.
        """
        seats, seated = seats_for(len(rows), self._count), self.seated
        if seated is not None:
            block = seated.block
            if len(rows) <= block.rows < SHRINK * seats:
                seats = block.rows
            if positions <= block.positions < SHRINK * positions:
                positions = block.positions
            if (seats, positions) == (block.rows, block.positions):
                return seated
            if seats < block.rows or positions < block.positions:
                for row in [row for row in seated.rows if row is not None and row not in rows]:
                    self._park(seated, row)
        self.seated = made = self._made(seated, rows, seats, positions)
        return made

    def _made(self, seated: SeatedRows | None, rows: Sequence[int], seats: int, positions: int) -> SeatedRows:
        """Create the memory block for decoding in this size, and copy the previous block's sequences to
        it.
        """
        kept = [] if seated is None else [i for i, row in enumerate(seated.rows) if row is not None]
        if seated is not None and kept:
            filler = [0] * (seats - len(kept))
            block = self._memory.take(seated.block, kept + filler, positions)
            sitting = [*(seated.rows[i] for i in kept), *(None for _ in filler)]
            return SeatedRows(block, self._memory.zeros(seats, positions), sitting)
        alone = self._parked.get(rows[0]) if seats == 1 else None
        if alone is None or alone.positions != positions:
            empty = [self._memory.zeros(seats, positions) for _ in range(2)]
            return SeatedRows(empty[0], empty[1], [None] * seats)
        del self._parked[rows[0]]
        return SeatedRows(alone, self._memory.zeros(1, positions), [rows[0]])

    def _park(self, seated: SeatedRows, row: int) -> None:
        """Move a KV cache slot from the memory block for decoding to a block of its own."""
        self._parked[row] = self._taken(seated, row, memory_for(self._sizes, self._lengths[row]))
        seated.rows[seated.rows.index(row)] = None

    def _sit(self, seated: SeatedRows, row: int, rows: Collection[int]) -> None:
        """Move a KV cache slot to a free position in the memory block for decoding.

        If no position is free, first move out a slot that is not in `rows`.
        """
        if None not in seated.rows:
            idle = (other for other in seated.rows if other is not None and other not in rows)
            self._park(seated, next(idle))
        seat, positions = seated.rows.index(None), seated.block.positions
        single = self._parked.pop(row, None) or self._memory.zeros(1, positions)
        if single.positions != positions:
            single = self._memory.take(single, [0], positions)
        self._memory.put(seated.block, seat, single, seated.spare)
        seated.swap()
        seated.rows[seat] = row
