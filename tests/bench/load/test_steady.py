from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.load.closed_loop import Trace
from bench.load.steady import steady


def lockstep(streams: int, rounds: int, tokens: int, prefill: float, step: float) -> list[Trace]:
    """Streams that all wait `prefill` seconds for their first token, then decode together."""
    traces: list[Trace] = []
    for _ in range(rounds):
        sent = traces[-1].arrivals[-1] if traces else 0.0
        arrivals = [sent + prefill + index * step for index in range(tokens)]
        traces += [Trace(sent, arrivals, [1] * tokens, tokens) for _ in range(streams)]
    return traces


def test_a_run_in_lockstep_by_hand() -> None:
    # A round takes 0.5 + 9 · 0.1 = 1.4 s; five rounds, of which the first opens and the last drains.
    found = steady(lockstep(4, 5, tokens=10, prefill=0.5, step=0.1), 4)
    assert found is not None
    assert found.seconds == pytest.approx(3 * 1.4)
    assert found.tokens == pytest.approx(3 * 4 * 10)
    assert found.tokens_per_second == pytest.approx(40 / 1.4)
    assert found.first == pytest.approx([0.5] * 12)
    assert found.gaps == pytest.approx([0.1] * 108)
    assert found.decode_step == pytest.approx(0.1)


def chunked(streams: int, rounds: int, tokens: int, prefill: float, step: float) -> list[Trace]:
    """Steps that take `prefill` where they hold a prompt, one at a time; the others decode meanwhile."""
    now, ended = 0.0, list[Trace]()
    running = [Trace(0.0) for _ in range(streams)]
    while running and len(ended) < streams * rounds:
        waiting = next((trace for trace in running if not trace.arrivals), None)
        now += prefill if waiting else step
        for number, trace in enumerate(running):
            if trace.arrivals or trace is waiting:
                trace.arrivals.append(now)
                trace.events.append(1)
                trace.tokens += 1
            if trace.tokens == tokens:
                ended.append(trace)
                running[number] = Trace(now)
    return ended


def test_a_decode_step_is_read_where_nobody_waits_for_a_first_token() -> None:
    found = steady(chunked(4, 12, tokens=6, prefill=1.0, step=0.1), 4)
    assert found is not None
    assert found.decode_step == pytest.approx(0.1)
    assert np.median(found.gaps) == pytest.approx(1.0)


def test_two_tokens_in_one_piece_are_one_gap_of_two_steps() -> None:
    traces = [
        Trace(n * 3.0, [n * 3.0 + 0.5 + 0.2 * i for i in range(12)], [1] + [2] * 11, 23) for n in range(6)
    ]
    found = steady(traces, 1)
    assert found is not None
    assert np.median(found.gaps) == pytest.approx(0.2)
    assert found.decode_step == pytest.approx(0.1)


def test_too_short_or_broken_runs_say_nothing() -> None:
    assert steady([], 1) is None
    assert steady(lockstep(4, 2, 10, 0.5, 0.1), 4) is None
    assert steady([Trace(0.0) for _ in range(9)], 2) is None


def test_staggered_streams_have_no_decode_step_of_their_own() -> None:
    # With as many streams as steps and a prompt in every step, somebody always waits.
    traces: list[Trace] = []
    for stream in range(10):
        for number in range(4):
            sent = stream * 0.1 + number
            traces.append(Trace(sent, [sent + 0.1 * (index + 1) for index in range(10)], [1] * 10, 10))
    found = steady(traces, 10)
    assert found is not None
    assert found.decode_step is None
    assert found.tokens_per_second == pytest.approx(100, rel=0.05)


@given(
    streams=st.integers(1, 5),
    rounds=st.integers(3, 6),
    tokens=st.integers(2, 12),
    prefill=st.floats(0.01, 2),
    step=st.floats(0.001, 0.2),
)
def test_ramp_and_drain_never_change_the_rate(
    streams: int, rounds: int, tokens: int, prefill: float, step: float
) -> None:
    found = steady(lockstep(streams, rounds, tokens, prefill, step), streams)
    assert found is not None
    rate = streams * tokens / (prefill + (tokens - 1) * step)
    assert found.tokens_per_second == pytest.approx(rate, rel=1e-6)
