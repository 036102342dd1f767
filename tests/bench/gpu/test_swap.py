from __future__ import annotations

from bench.gpu.swap import AFTERMATH, Swap
from bench.load.closed_loop import LoadResult, Trace


def test_gaps_during_the_exchange_and_apart_from_it_are_kept_apart() -> None:
    before = Trace(0.0, [1.0, 1.5, 1.6])
    across = Trace(0.0, [1.9, 2.2, 2.3])
    after = Trace(0.0, [2.5 + AFTERMATH, 2.8 + AFTERMATH, 3.6 + AFTERMATH])
    figures = Swap(2.0, 2.25).figures(LoadResult(traces=[before, across, after]))
    assert figures == {
        "seconds": 0.25,
        "fault": None,
        "longest_gap_ms": 300.0,
        "longest_gap_without_ms": 800.0,
    }
