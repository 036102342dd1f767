"""The fixed sizes (tokens, positions, slots) for which sessions on a device are created; a requested size is
rounded up to one of these.

With fewer sizes, fewer sessions are needed; with more sizes, less computation is wasted. Each size is the
previous size times a constant factor, which bounds the waste.
"""

from __future__ import annotations

from collections.abc import Sequence

SMALLEST_MEMORY = 128
"""Smallest number of positions per KV cache slot on a device."""
SMALLEST_CHUNK = 16
"""Smallest number of tokens in a prefill run on a device."""
SMALLEST_RANK = 8
"""Minimum number of LoRA rank columns per linear module. It is above 0, since devices do not accept empty
arrays.
"""
ALIGNMENT = 16


def memories(context: int) -> tuple[int, ...]:
    """List the allowed numbers of positions per KV cache slot: powers of two, then one that holds `context` +
    1.

    A slot's last position is never read. Keys and values of unused slots are written there.
    """
    largest = -(-(context + 1) // ALIGNMENT) * ALIGNMENT
    return (*_powers(SMALLEST_MEMORY, 2, largest * 3 // 4), largest)


def memory_for(sizes: Sequence[int], tokens: int) -> int:
    """Return the smallest of `sizes` that holds `tokens` positions and the unused last position."""
    return next(size for size in sizes if size > tokens)


def chunks(longest: int) -> tuple[int, ...]:
    """List the allowed numbers of tokens in a prefill run: powers of four, then `longest`."""
    return (*_powers(SMALLEST_CHUNK, 4, longest), longest)


def chunk_for(sizes: Sequence[int], tokens: int) -> int:
    """Return the smallest of `sizes` that is at least `tokens`."""
    return next(size for size in sizes if size >= tokens)


def seats_for(rows: int, most: int) -> int:
    """Return the number of batch slots in a run that decodes `rows` sequences: a power of two, but at most
    `most`.
    """
    return min(most, 1 << (rows - 1).bit_length())


def rank_for(columns: int) -> int:
    """Round a linear module's number of LoRA rank columns up to a power of two."""
    return max(SMALLEST_RANK, 1 << (columns - 1).bit_length())


def _powers(first: int, factor: int, below: int) -> list[int]:
    sizes: list[int] = []
    while first < below:
        sizes.append(first)
        first *= factor
    return sizes
