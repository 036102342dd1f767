"""The distance of a round from the limit, and what several servers of one state add up to."""

from __future__ import annotations

import asyncio

import pytest

from bench.figures.compared import median_of
from bench.limits.reached import RunLimit
from bench.scenarios.catalogue import find_scenario
from bench.suite.measure import LoadShape, MeasureOptions, ScenarioResult
from bench.suite.rounds import SHARE, measure_round
from bench.suite.tax import BY_NAME, measure_state
from bench.target.http import Endpoint
from bench.target.probe import TargetServer
from tests.bench.report.test_report import failing, result

SERVER = TargetServer(Endpoint("http://127.0.0.1:9"), "other", "base", (), None)
SHAPE, OPTIONS = LoadShape(users=2), MeasureOptions()
RATE = result().figures.tokens_per_second


@pytest.fixture
def seeds(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The seeds of the runs; each run gives the figures of a made-up one."""
    seen: list[int] = []

    async def measured(
        _target: object, _scenario: object, _shape: object, options: MeasureOptions
    ) -> ScenarioResult:
        seen.append(options.plan.seed)
        return result()

    monkeypatch.setattr("bench.suite.rounds.measure", measured)
    return seen


def test_a_round_states_its_share_of_the_limit(seeds: list[int]) -> None:
    mixed = find_scenario("mixed")
    figures = asyncio.run(measure_round("a", SERVER, mixed, SHAPE, OPTIONS, 3, RunLimit(given=4 * RATE)))
    assert figures[SHARE] == 0.25
    assert figures["tokens_per_second"] == RATE
    assert seeds == [OPTIONS.plan.seed + 3], "each turn draws other prompts"
    assert SHARE not in asyncio.run(measure_round("a", SERVER, mixed, SHAPE, OPTIONS, 0))


def test_two_servers_share_one_device(seeds: list[int]) -> None:
    limit = RunLimit(given=4 * RATE)
    both = asyncio.run(measure_state(BY_NAME["side-by-side"], [SERVER] * 2, SHAPE, OPTIONS, 0, limit))
    assert (both[SHARE], both["tokens_per_second"]) == (0.5, 2 * RATE)
    assert both["ttft_p50_ms"] == 100
    assert len(seeds) == 2


def test_a_failed_request_ends_the_rounds(monkeypatch: pytest.MonkeyPatch) -> None:
    async def measured(*_: object) -> ScenarioResult:
        return failing()

    monkeypatch.setattr("bench.suite.rounds.measure", measured)
    with pytest.raises(RuntimeError, match="status 500"):
        asyncio.run(measure_round("a", SERVER, find_scenario("mixed"), SHAPE, OPTIONS, 0))


def test_a_median_is_of_every_round() -> None:
    rounds = [{SHARE: 0.1}, {SHARE: 0.3}, {SHARE: 0.2}]
    assert median_of(rounds, SHARE) == 0.2
    assert median_of([*rounds, {}], SHARE) is None
    assert median_of([], SHARE) is None
