"""The fixed sizes that a device's sessions are made for; what is asked for is rounded up to one of them.

Fewer sizes mean fewer sessions to make, more of them less that is computed for nothing. All grow by a factor,
so the waste is bounded by it.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALLEST_MEMORY = 128
"""Positions of the smallest KV memory."""
SMALLEST_CHUNK = 16
"""Tokens of the smallest run over a prompt."""
SMALLEST_RANK = 8
"""Rank columns of one module that a run has at least; a device takes no empty arrays."""
ALIGNMENT = 16


def memories(context: int) -> tuple[int, ...]:
    """Positions of a row: powers of two, then whatever holds `context` and one more.

    A row's last position is never read: what has to be written somewhere, and nowhere else, goes there.
    """
    largest = -(-(context + 1) // ALIGNMENT) * ALIGNMENT
    return (*_powers(SMALLEST_MEMORY, 2, largest * 3 // 4), largest)


def memory_for(sizes: Sequence[int], tokens: int) -> int:
    """The least of `sizes` that holds so many tokens."""
    return next(size for size in sizes if size > tokens)


def chunks(longest: int) -> tuple[int, ...]:
    """Tokens of a run over a prompt: powers of four, then `longest`."""
    return (*_powers(SMALLEST_CHUNK, 4, longest), longest)


def chunk_for(sizes: Sequence[int], tokens: int) -> int:
    """The least of `sizes` that takes so many tokens."""
    return next(size for size in sizes if size >= tokens)


def seats_for(rows: int, most: int) -> int:
    """Rows of a run that decodes so many: a power of two, `most` at most."""
    return min(most, 1 << (rows - 1).bit_length())


def rank_for(columns: int) -> int:
    """Rank columns of one module: a power of two."""
    return max(SMALLEST_RANK, 1 << (columns - 1).bit_length())


def _powers(first: int, factor: int, below: int) -> list[int]:
    sizes: list[int] = []
    while first < below:
        sizes.append(first)
        first *= factor
    return sizes
