"""How many threads are taken, from how quick each number was."""

from __future__ import annotations

import itertools

import pytest
import torch

from adapters.training.loop.threads import ROUNDS, candidates, choose, format_speeds, measure_threads


@pytest.mark.parametrize(
    ("most", "tried"), [(1, [1]), (2, [1, 2]), (4, [1, 2, 3, 4]), (12, [1, 2, 4, 8, 11, 12])]
)
def test_few_numbers_are_tried(most: int, tried: list[int]) -> None:
    assert candidates(most) == tried


@pytest.mark.parametrize(
    ("speeds", "chosen"),
    [
        ({1: [10, 10, 10], 2: [19, 18, 19]}, 2),
        ({1: [10, 10, 10], 2: [19, 3, 3]}, 1),
        ({1: [10, 10, 10], 2: [10.9, 10.9, 10.9]}, 1),
        ({1: [10], 2: [18], 3: [24], 4: [25]}, 3),
    ],
)
def test_the_fewest_that_are_nearly_the_quickest_are_taken(
    speeds: dict[int, list[float]], chosen: int
) -> None:
    assert choose(speeds) == chosen


def test_a_measurement_tries_each_number_in_every_round_and_leaves_the_number_as_it_was() -> None:
    before = torch.get_num_threads()
    ticks = itertools.count()
    speeds = measure_threads(16, 8, 2, clock=lambda: next(ticks) * 0.1)
    assert {count: len(found) for count, found in speeds.items()} == {1: ROUNDS, 2: ROUNDS}
    assert torch.get_num_threads() == before
    assert format_speeds({1: [4.0], 2: [1.0]}) == "1: 100%, 2: 25%"


def test_what_is_far_behind_is_not_timed_again() -> None:
    now = 0.0

    def clock() -> float:
        nonlocal now
        now += 0.01 if torch.get_num_threads() == 1 else 0.2
        return now

    speeds = measure_threads(16, 8, 2, clock=clock)
    assert {count: len(found) for count, found in speeds.items()} == {1: ROUNDS, 2: 1}
