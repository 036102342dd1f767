"""KV memory: one block of address space for all rows, backed by real memory only where keys were written.

On Linux and macOS it is an anonymous private mapping that is committed page by page and can be given back;
elsewhere a plain zeroed array.
"""

from __future__ import annotations

import mmap
import sys

import numpy as np
from numpy.typing import NDArray

KEEP_BYTES = 4 << 20
"""A row that used less is not given back: mapping its pages again would cost more than they hold."""
MAP_NORESERVE = 0x4000
"""Linux's, of asm-generic; Python names it from 3.13 on."""


class KvMemory:
    """`array` [layers, 2 (keys, values), rows, KV heads, positions, head size], zeroed."""

    def __init__(self, layers: int, rows: int, kv_heads: int, positions: int, head_dim: int) -> None:
        shape = (layers, 2, rows, kv_heads, positions, head_dim)
        size = int(np.prod(shape, dtype=np.int64)) * 4
        self._map = _reserve(size)
        if self._map is not None:
            self.array: NDArray[np.float32] = np.frombuffer(self._map, dtype=np.float32).reshape(shape)
        else:
            self.array = np.zeros(shape, dtype=np.float32)
        self._token_bytes = layers * 2 * kv_heads * head_dim * 4
        self._slice_bytes = kv_heads * positions * head_dim * 4

    @property
    def address(self) -> int:
        """Where the block begins."""
        return int(self.array.ctypes.data)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy positions [0, length) of one row to another."""
        self.array[:, :, target, :, :length] = self.array[:, :, source, :, :length]

    def release(self, row: int, used: int) -> None:
        """Give back the memory of a row of which `used` positions were written, if that is worth it."""
        if self._map is None or used * self._token_bytes < KEEP_BYTES or not hasattr(mmap, "MADV_DONTNEED"):
            return
        page = mmap.PAGESIZE
        layers, _, rows = self.array.shape[:3]
        for part in range(layers * 2):
            begin = (part * rows + row) * self._slice_bytes
            first, last = -(-begin // page) * page, (begin + self._slice_bytes) // page * page
            if last > first:
                self._map.madvise(mmap.MADV_DONTNEED, first, last - first)


def _reserve(size: int) -> mmap.mmap | None:
    """Address space with no promise of memory behind it: a budget above what is free now is no error.

    None where the system has no such mapping.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if sys.platform == "linux":
        flags |= MAP_NORESERVE
    return mmap.mmap(-1, size, flags=flags)
