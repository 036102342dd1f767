"""The KV cache on the CPU: one block of address space for all slots, which takes memory only after keys and
values are written.

On Linux and macOS it is an anonymous private mapping. The system commits its memory page by page, and pages
can be returned. On other systems it is a plain array of zeros.
"""

from __future__ import annotations

import mmap
import sys

import numpy as np
from numpy.typing import NDArray

KEEP_BYTES = 4 << 20
"""A KV cache slot that used fewer bytes keeps its memory when it is released. Mapping its memory pages again
would cost more than it saves.
"""
MAP_NORESERVE = 0x4000
"""Value of the flag MAP_NORESERVE on Linux (asm-generic). Python's `mmap` module defines it from version 3.13
on.
"""


class KvMemory:
    """The KV cache of all slots: `array` [layers, 2 (keys, values), slots, KV heads, positions, head size],
    initially zero.
    """

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
        """Memory address at which the KV cache begins."""
        return int(self.array.ctypes.data)

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the keys and values of positions [0, length) from KV cache slot `source` to slot `target`."""
        self.array[:, :, target, :, :length] = self.array[:, :, source, :, :length]

    def release(self, row: int, used: int) -> None:
        """Return the memory of KV cache slot `row` to the system, unless its `used` positions take less than
        `KEEP_BYTES`.
        """
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
    """Reserve address space without committing memory, so that the KV cache may be larger than the free
    memory.

    Returns None if the system does not support this.
    """
    if not hasattr(mmap, "MAP_ANONYMOUS"):
        return None
    flags = mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS
    if sys.platform == "linux":
        flags |= MAP_NORESERVE
    return mmap.mmap(-1, size, flags=flags)
