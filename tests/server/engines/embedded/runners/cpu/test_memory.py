from __future__ import annotations

import sys

import numpy as np
import pytest

from server.engines.embedded.runners.cpu import memory as module
from server.engines.embedded.runners.cpu.memory import KEEP_BYTES, KvMemory


def resident_bytes() -> int:
    with open("/proc/self/statm") as file:  # noqa: PTH123
        return int(file.read().split()[1]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_taken_when_written_and_given_back_when_released() -> None:
    memory = KvMemory(layers=8, rows=1024, kv_heads=4, positions=8192, head_dim=64)
    assert memory.array.nbytes >= 128 << 30
    before = resident_bytes()
    memory.array[:, :, 5, :, :4096] = 1.0
    memory.array[:, :, 4, :, :16] = 2.0
    memory.array[:, :, 6, :, :16] = 3.0
    assert resident_bytes() - before > 60 << 20
    memory.release(5, 4096)
    assert resident_bytes() - before < 8 << 20
    assert not memory.array[0, 0, 5, 0, 0].any()
    assert (memory.array[:, :, 4, :, :16] == 2.0).all()
    assert (memory.array[:, :, 6, :, :16] == 3.0).all()


def test_a_short_row_keeps_its_pages() -> None:
    memory = KvMemory(layers=2, rows=2, kv_heads=1, positions=64, head_dim=16)
    memory.array[:, :, 1] = 1.0
    assert KEEP_BYTES > 64 * 2 * 2 * 16 * 4
    memory.release(1, 64)
    assert (memory.array[:, :, 1] == 1.0).all()


@pytest.mark.parametrize("mapped", [True, False])
def test_a_copy_takes_the_prefix_alone(monkeypatch: pytest.MonkeyPatch, mapped: bool) -> None:
    if not mapped:
        monkeypatch.delattr(module.mmap, "MAP_ANONYMOUS")
    memory = KvMemory(layers=2, rows=3, kv_heads=2, positions=32, head_dim=16)
    assert not memory.array.any()
    memory.array[...] = np.random.default_rng(0).standard_normal(memory.array.shape, dtype=np.float32)
    before = memory.array.copy()
    memory.copy(0, 2, 10)
    np.testing.assert_array_equal(memory.array[:, :, 2, :, :10], before[:, :, 0, :, :10])
    np.testing.assert_array_equal(memory.array[:, :, 2, :, 10:], before[:, :, 2, :, 10:])
    np.testing.assert_array_equal(memory.array[:, :, :2], before[:, :, :2])
    memory.release(0, 32)
