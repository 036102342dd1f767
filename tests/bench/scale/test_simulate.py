"""The model by hand-worked runs, and what holds for every one."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bench.figures.level import ServiceLevel
from bench.scale.replica import ReplicaLimits
from bench.scale.router import ROUTERS
from bench.scale.search import FleetTry, smallest_fleet
from bench.scale.simulate import Autoscaling, FleetPlan, simulate
from bench.scale.times import StepTimes
from bench.scale.workload import FleetRequest, WorkloadOptions, draw
from bench.text.brought import TraceArrival

# A step of one sequence takes 10 ms, of two 12 ms; a prompt's part 10 ms and 1 ms a token; 5 ms overhead.
TIMES = StepTimes((1, 2), (0.010, 0.012), 0.001, 0.010, 0.005)
ONE = FleetPlan(1, TIMES)
QUICK = StepTimes((1, 8), (0.01, 0.02), 0.0001, 0.01, 0.003, 0.2)


def test_one_request_by_hand() -> None:
    found = simulate(ONE, [FleetRequest(1.0, prompt_tokens=20, answer_tokens=5)])
    assert found.ttft_ms is not None
    assert found.gap_ms is not None
    # 5 ms overhead, 10 + 20 ms prompt; then four steps of 10 ms.
    assert found.ttft_ms.p50 == pytest.approx(35)
    assert found.gap_ms.p50 == pytest.approx(10)
    assert found.seconds == pytest.approx(0.075)
    assert found.tokens_per_second == pytest.approx(5 / 0.075)
    assert found.cost_per_million(3.6) == pytest.approx(1000 / (5 / 0.075))


def test_a_second_prompt_waits_for_the_step_and_shares_the_next() -> None:
    # The first decodes from 35 ms on, in steps of 10. The second is there at 42 ms, waits until 45, and its
    # prompt of 10 tokens shares a step with one decode: 10 + 10 + 10 ms.
    found = simulate(ONE, [FleetRequest(0, 20, 50), FleetRequest(0.037, 10, 2)])
    assert found.ttft_ms is not None
    assert found.ttft_ms.p99 == pytest.approx(38, abs=0.1)


def test_a_prompt_beyond_the_budget_takes_several_steps() -> None:
    plan = replace(ONE, limits=ReplicaLimits(max_num_batched_tokens=8))
    found = simulate(plan, [FleetRequest(0, 20, 1)])
    assert found.seconds == pytest.approx(0.005 + 3 * 0.010 + 0.020)


def test_no_more_than_max_num_seqs_run() -> None:
    plan = replace(ONE, limits=ReplicaLimits(max_num_seqs=1))
    found = simulate(plan, [FleetRequest(0, 20, 2), FleetRequest(0, 20, 2)])
    assert found.seconds == pytest.approx(0.005 + 2 * 0.040)


def test_a_cold_adapter_is_loaded_once_for_all_that_wait() -> None:
    plan = replace(ONE, times=replace(TIMES, load=1.0))
    found = simulate(plan, [FleetRequest(0, 20, 1, adapter=1), FleetRequest(0.5, 20, 1, adapter=1)])
    assert found.cold == 0.5
    assert found.seconds == pytest.approx(1.005 + 2 * 0.010 + 0.040)


def test_more_adapters_than_slots_are_loaded_again() -> None:
    plan = replace(ONE, limits=ReplicaLimits(slots=1))
    requests = [FleetRequest(float(number), 20, 1, adapter=number % 2) for number in range(4)]
    assert simulate(plan, requests).cold == 1.0
    assert simulate(ONE, requests).cold == 0.5


def test_a_session_finds_its_history_where_it_was() -> None:
    turns = [FleetRequest(0, 20, 5, 0, 1), FleetRequest(1, 45, 5, 0, 1, history_tokens=25)]
    assert simulate(ONE, turns).cached == pytest.approx(25 / 65)
    two = replace(ONE, replicas=2)
    assert simulate(two, turns).cached == pytest.approx(25 / 65)
    assert simulate(replace(two, router="round-robin"), turns).cached == 0
    little = replace(ONE, limits=ReplicaLimits(cached_tokens=10))
    assert simulate(little, turns).cached == 0


@pytest.mark.parametrize("router", ROUTERS)
def test_every_request_ends_and_every_token_is_made(router: str) -> None:
    requests = draw(WorkloadOptions(rate=40, seconds=5, adapters=20, turns=3))
    found = simulate(FleetPlan(4, QUICK, router=router), requests)
    assert found.requests == len(requests)
    made = found.tokens_per_second * found.seconds
    assert made == pytest.approx(sum(request.answer_tokens for request in requests))
    assert found == simulate(FleetPlan(4, QUICK, router=router), requests), "the same input, the same figures"


def test_affinity_keeps_adapters_and_sessions_at_home() -> None:
    requests = draw(WorkloadOptions(rate=40, seconds=10, adapters=50, turns=4))
    near, far = (simulate(FleetPlan(8, QUICK, router=name), requests) for name in ("affinity", "round-robin"))
    assert near.cold < far.cold / 2
    assert near.cached > 2 * far.cached


def test_the_smallest_fleet_is_that_of_trying_every_size() -> None:
    requests, level = draw(WorkloadOptions(rate=30, seconds=10)), ServiceLevel(200, 50)
    shown: list[FleetTry] = []
    tries = smallest_fleet(FleetPlan(1, QUICK), requests, level, shown.append)
    every = [simulate(FleetPlan(size, QUICK), requests) for size in range(1, 8)]
    wanted = next(
        size
        for size, figures in enumerate(every, 1)
        if figures.ttft_ms and figures.gap_ms and figures.ttft_ms.p95 <= 200 and figures.gap_ms.p95 <= 50
    )
    assert tries[-1].replicas == wanted > 1
    assert tries[-1].holds
    assert len(shown) == len(tries)


def test_autoscaling_follows_the_load_and_costs_less_than_its_most() -> None:
    requests = draw(WorkloadOptions(rate=60, seconds=60))
    scaling = Autoscaling(most=12, target=4, interval=1, start_seconds=3, quiet_seconds=5)
    alone = simulate(FleetPlan(1, QUICK), requests)
    scaled = simulate(FleetPlan(1, QUICK, autoscaling=scaling), requests)
    assert alone.ttft_ms is not None
    assert scaled.ttft_ms is not None
    assert 1 < scaled.most_replicas <= 12
    assert 1 < scaled.replicas < scaled.most_replicas
    assert scaled.ttft_ms.p50 < alone.ttft_ms.p50 / 2
    assert scaled.requests == len(requests)


def test_an_idle_fleet_shrinks_to_its_least() -> None:
    busy = draw(WorkloadOptions(rate=60, seconds=20))
    late = [FleetRequest(120.0, 20, 5)]
    scaling = Autoscaling(most=8, target=2, interval=1, start_seconds=1, quiet_seconds=2)
    found = simulate(FleetPlan(1, QUICK, autoscaling=scaling), [*busy, *late])
    assert found.most_replicas > 3
    assert found.replicas < found.most_replicas / 2


def test_a_trace_has_its_own_times_and_lengths() -> None:
    found = draw(WorkloadOptions(adapters=3), [TraceArrival(0, 100, 7), TraceArrival(2.5, 50, 9)])
    assert [(one.at, one.prompt_tokens, one.answer_tokens) for one in found] == [(0, 100, 7), (2.5, 50, 9)]


def test_a_thousand_replicas_run() -> None:
    requests = draw(WorkloadOptions(rate=1000, seconds=1, adapters=200))
    found = simulate(FleetPlan(1000, QUICK), requests)
    assert (found.requests, found.replicas) == (len(requests), pytest.approx(1000))


@pytest.mark.parametrize("replicas", [0, 1001])
def test_a_fleet_out_of_bounds_is_refused(replicas: int) -> None:
    with pytest.raises(ValueError, match=f"replicas {replicas}"):
        FleetPlan(replicas, TIMES)
