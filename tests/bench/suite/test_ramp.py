"""A ramp narrows down where the level breaks."""

from __future__ import annotations

import asyncio

import pytest

from bench.figures.level import ServiceLevel
from bench.figures.summary import summarize
from bench.load.records import LoadRun
from bench.scenarios.catalogue import find_scenario
from bench.suite.measure import LoadShape, ScenarioResult
from bench.suite.ramp import RampResult, ramp
from bench.target.reconcile import reconcile
from tests.bench.figures.records import record


def climb(first: LoadShape, breaks_above: float, most: float = 64) -> RampResult:
    async def step(shape: LoadShape) -> ScenarioResult:
        slow = (shape.users or shape.rate) > breaks_above
        records = (record(arrivals=(0.9, 0.95) if slow else (0.1, 0.12)),)
        figures = summarize(records, 1, ServiceLevel())
        run = LoadRun(records, (), 1, 0)
        return ScenarioResult(find_scenario("mixed"), shape, figures, reconcile(records, None, None), run)

    return asyncio.run(ramp(first, step, most))


def test_users_are_whole_numbers() -> None:
    found = climb(LoadShape(users=1), 11)
    assert (found.holds, found.bounded) == (11, True)
    assert [step.shape.users for step in found.steps] == sorted({1, 2, 4, 8, 16, 12, 10, 11})
    assert all(step.shape.requests == 0 for step in found.steps)
    each = climb(LoadShape(users=2, requests=6), 5).steps
    assert all(step.shape.requests == 3 * step.shape.users for step in each)


def test_rates_are_halved_three_times() -> None:
    found = climb(LoadShape(rate=1), 5)
    assert found.holds == 5.0
    assert [step.shape.rate for step in found.steps] == [1, 2, 4, 5.0, 5.5, 6, 8]


def test_a_trace_is_not_called_a_poisson_process() -> None:
    assert LoadShape(rate=2.5, seconds=30, trace=True).label == "trace, 2.5 requests/s"
    assert LoadShape(rate=2.5, seconds=30).label == "2.5 requests/s, Poisson"


def test_a_server_that_never_breaks_is_said_to_be_unbounded() -> None:
    found = climb(LoadShape(users=8), 1000)
    assert (found.holds, found.bounded) == (64, False)


def test_a_server_that_breaks_at_once_holds_nothing() -> None:
    found = climb(LoadShape(users=8), 1)
    assert (found.holds, found.bounded, len(found.steps)) == (0, True, 1)


@pytest.mark.parametrize("wrong", [{}, {"users": 1, "rate": 1.0}, {"users": 4, "requests": 3}])
def test_a_load_is_closed_or_open(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="users"):
        LoadShape(**wrong)  # pyright: ignore[reportArgumentType]  # ints and floats alike
