"""Memory that is free goes back to the system."""

from __future__ import annotations

import sys

import psutil
import pytest

from server.asgi.memory import AGAIN, GROWTH, Trimmer

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("held", [0, 30])
@pytest.mark.skipif(sys.platform != "linux", reason="only glibc keeps it")
async def test_what_a_burst_leaves_behind_is_given_back(held: int) -> None:
    """Also if it is held for many looks: by then nothing grows any more."""
    trimmer, process = Trimmer(), psutil.Process()
    before = process.memory_info().rss
    # Below the size that has a mapping of its own, with something left at the end that keeps the heap's top.
    pieces = [bytes(100_000) for _ in range(1500)]
    top = bytearray(100_000)
    for _ in range(held):
        await trimmer.look()
    del pieces
    if process.memory_info().rss - before < GROWTH:
        pytest.skip("this C library gives it back by itself")
    for _ in range(max(AGAIN) if held else 1):
        await trimmer.look()
    assert process.memory_info().rss - before < GROWTH
    assert top
