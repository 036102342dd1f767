from __future__ import annotations

import pytest

from bench.scale.measure import check_run, decode_gaps, mean_times
from bench.scale.replica import ReplicaLimits
from bench.scale.simulate import FleetPlan
from bench.scale.times import StepTimes
from tests.bench.figures.records import record

TIMES = StepTimes((1,), (0.010,), 0.001, 0.010, 0.005)


def test_gaps_are_those_while_all_decode() -> None:
    early = record(1, arrivals=(0.0, 0.5, 0.6, 0.7, 0.8), events=(1, 1, 1, 1, 1))
    late = record(2, arrivals=(0.5, 0.6, 0.8, 2.0), events=(1, 1, 2, 1))
    # From 0.5 to 0.8: three gaps of 0.1 of the first; 0.1 and twice 0.1 of the second.
    assert decode_gaps([early, late]) == pytest.approx([0.1] * 6)


def test_the_mean_of_two_measurements() -> None:
    found = mean_times(TIMES, StepTimes((1,), (0.020,), 0.003, 0.020, 0.015, 1.0))
    assert found == StepTimes((1,), (0.015,), 0.002, 0.015, 0.010, 0.5)


def test_a_run_that_goes_as_the_model_says_holds() -> None:
    # 5 ms overhead, a part of 10 ms and 20 tokens of 1 ms; two more tokens of 10 ms.
    real = record(
        1,
        intended=3.0,
        sent=3.0,
        arrivals=(3.035, 3.045, 3.055),
        events=(1, 1, 1),
        end=3.055,
        prompt_tokens=24,
        cached_tokens=4,
        completion_tokens=3,
    )
    found = check_run([real], FleetPlan(1, TIMES, ReplicaLimits(), "round-robin"), 0.5, 2.0)
    assert found.errors == (pytest.approx(0, abs=1e-6), pytest.approx(0, abs=1e-6))
    assert found.holds
