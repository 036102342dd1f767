"""The fixed sizes for which a device's sessions are created. Requested sizes are rounded up to one of them.

Fewer sizes need fewer sessions; more sizes waste less computation. Each size is the one before times a
constant factor, which bounds the waste.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALLEST_MEMORY = 128
"""Positions of the smallest KV memory."""
SMALLEST_CHUNK = 16
"""Tokens of the smallest prefill run."""
SMALLEST_RANK = 8
"""Minimum rank columns of a module in a run, since devices do not accept empty arrays."""
ALIGNMENT = 16


def memories(context: int) -> tuple[int, ...]:
    """List the sizes of a row in positions: powers of two, then one that holds `context` + 1.

    The last position of a row is never read. Keys and values of idle rows are written there.
    """
    largest = -(-(context + 1) // ALIGNMENT) * ALIGNMENT
    return (*_powers(SMALLEST_MEMORY, 2, largest * 3 // 4), largest)


def memory_for(sizes: Sequence[int], tokens: int) -> int:
    """Return the smallest of `sizes` that holds `tokens` and the unused last position."""
    return next(size for size in sizes if size > tokens)


def chunks(longest: int) -> tuple[int, ...]:
    """List the sizes of a prefill run in tokens: powers of four, then `longest`."""
    return (*_powers(SMALLEST_CHUNK, 4, longest), longest)


def chunk_for(sizes: Sequence[int], tokens: int) -> int:
    """Return the smallest of `sizes` that is at least `tokens`."""
    return next(size for size in sizes if size >= tokens)


def seats_for(rows: int, most: int) -> int:
    """Return the rows of a run that decodes `rows`: a power of two, but at most `most`."""
    return min(most, 1 << (rows - 1).bit_length())


def rank_for(columns: int) -> int:
    """Round a module's rank columns up to a power of two."""
    return max(SMALLEST_RANK, 1 << (columns - 1).bit_length())


def _powers(first: int, factor: int, below: int) -> list[int]:
    sizes: list[int] = []
    while first < below:
        sizes.append(first)
        first *= factor
    return sizes
