from __future__ import annotations

import itertools
from collections import Counter
from dataclasses import asdict

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.gpu.budget import OVERHEAD, TimeBudget
from bench.gpu.scenarios import (
    BY_NAME,
    SLOTS,
    STEADY,
    Length,
    Point,
    expected_seconds,
    jobs,
    points,
    trim,
    wanted_rounds,
    warm_up,
)
from bench.limits.devices import find_device
from bench.limits.roofline import Model
from bench.load.steady import LEAST_ROUNDS
from bench.random_model import PRESETS

ALL = points(["oneseek", "vllm"], list(STEADY), [1, 16, 64, 256])


def test_each_server_is_started_once_for_base_lora_and_thrash_never_both_at_once() -> None:
    assert len(ALL) == len(set(ALL)) == 2 * 6 * 4
    order = list(dict.fromkeys(point.start for point in ALL))
    assert order == [(server, start) for start in SLOTS for server in ("oneseek", "vllm")]
    changes = sum(before.start != after.start for before, after in itertools.pairwise(ALL))
    assert changes == len(order) - 1


def test_an_unknown_scenario_is_refused_by_name() -> None:
    with pytest.raises(ValueError, match=r"'three' .*base, idle"):
        points(["vllm"], ["base", "three"], [1])


@pytest.mark.parametrize(
    ("scenario", "shares"),
    [
        ("base", {"base": 24}),
        ("idle", {"base": 24}),
        ("one", {"a1": 24}),
        ("two", {"a1": 12, "a2": 12}),
        ("eight", {f"a{number}": 3 for number in range(1, 9)}),
        ("thrash", {f"a{number}": 3 for number in range(1, 9)}),
    ],
)
def test_who_is_asked(scenario: str, shares: dict[str, int]) -> None:
    asked = jobs(Point("vllm", scenario, 8), 3, Length(5, 7), vocabulary=100)
    assert Counter(job.body["model"] for job in asked) == shares
    for job in asked:
        assert len(job.body["prompt"]) == 5
        assert (job.tokens, job.body["max_tokens"], job.body["ignore_eos"]) == (7, 7, True)


def test_the_thrash_asks_for_more_than_fits_and_the_others_for_less() -> None:
    for scenario in BY_NAME.values():
        assert (scenario.adapters > SLOTS[scenario.start]) == (scenario.name == "thrash")


def test_no_prompt_is_sent_twice_to_a_server_and_both_servers_get_the_same() -> None:
    length = Length(16, 4)
    few = points(["oneseek", "vllm"], list(BY_NAME), [1, 4])
    sent: dict[str, list[tuple[int, ...]]] = {"oneseek": [], "vllm": []}
    for point in few:
        for job in (*warm_up(point, length, 4096), *jobs(point, 4, length, 4096)):
            sent[point.server].append(tuple(job.body["prompt"]))
    assert sent["oneseek"] == sent["vllm"]
    assert len(set(sent["vllm"])) == len(sent["vllm"])


def test_a_warm_up_asks_every_adapter() -> None:
    asked = warm_up(Point("vllm", "eight", 1), Length(4, 128), 100)
    assert {job.body["model"] for job in asked} == set(BY_NAME["eight"].names)
    assert {job.tokens for job in asked} == {16}


def test_the_whole_matrix_fits_twenty_minutes_of_an_h200() -> None:
    device, model = find_device("NVIDIA H200"), Model.read(asdict(PRESETS["7b"]))
    assert device is not None
    guess = {point: expected_seconds(point, 1, Length(), model, device, 0.6) for point in ALL}
    # About what vLLM is known to do: 130 tokens/s alone, and 5 to 10 thousand with 256 streams.
    assert 128 / guess[Point("vllm", "base", 1)] == pytest.approx(140, rel=0.15)
    assert 5000 < 256 * 128 / guess[Point("vllm", "base", 256)] < 10_000
    budget = TimeBudget(1200, guess, start_guess=85)
    rounds = budget.rounds(ALL, fresh=True)
    assert rounds == budget.untrimmed(ALL)
    assert 900 < budget.expected(ALL, rounds, fresh=True) < 1200


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_budget_learns_from_what_it_saw() -> None:
    todo = [Point("vllm", "base", 1), Point("vllm", "idle", 1), Point("vllm", "idle", 64)]
    clock = Clock()
    budget = TimeBudget(1000, dict.fromkeys(todo, 2.0), start_guess=50, clock=clock)
    assert budget.expected(todo, budget.untrimmed(todo), fresh=True) == 2 * 50 + 3 * OVERHEAD + 25 * 2
    budget.saw(todo[0], 10, 60.0)  # thrice the guess
    assert budget.round_seconds(todo[1]) == pytest.approx(6)
    assert budget.round_seconds(todo[2]) == pytest.approx(6), "not seen yet: scaled like the others"
    budget.saw(todo[2], 5, 10.0)
    assert budget.round_seconds(todo[2]) == pytest.approx(2)
    budget.starts.append(70.0)
    clock.now += 900
    assert budget.left == 100
    assert budget.fits(todo[1], fresh=True)
    clock.now += 15
    assert not budget.fits(todo[1], fresh=True)
    assert budget.fits(todo[1], fresh=False)


@given(
    costs=st.dictionaries(
        st.builds(
            Point, st.sampled_from(["a", "b"]), st.sampled_from(list(BY_NAME)), st.sampled_from([1, 16, 256])
        ),
        st.floats(0.01, 50),
        min_size=1,
    ),
    left=st.floats(-10, 2000),
)
def test_trimming_keeps_to_the_time_or_to_the_least(costs: dict[Point, float], left: float) -> None:
    wanted = {point: wanted_rounds(point.streams) for point in costs}
    kept = trim(costs, wanted, left)
    assert all(LEAST_ROUNDS <= kept[point] <= wanted[point] for point in costs)
    fits = sum(costs[point] * kept[point] for point in costs) <= left
    assert fits or all(number == LEAST_ROUNDS for number in kept.values())
    if sum(costs[point] * wanted[point] for point in costs) <= left:
        assert kept == wanted
    for streams in (1, 16, 256):
        assert len({kept[point] for point in costs if point.streams == streams}) <= 1
