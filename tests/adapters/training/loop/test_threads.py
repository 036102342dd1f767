"""How many threads are taken, from how quick each number was."""

from __future__ import annotations

import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from adapters.training.loop.progress import Reporter
from adapters.training.loop.threads import (
    ROUNDS,
    candidates,
    choose,
    format_speeds,
    measure_threads,
    set_threads,
)


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


@pytest.fixture
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


@pytest.mark.parametrize(
    ("asked", "kept", "begun", "said"),
    [(None, None, False, True), (1, "2", True, False), (None, "1", True, False), (None, "1", False, True)],
    ids=["measured", "asked for", "gone on with", "begun anew"],
)
@pytest.mark.usefixtures("two_threads")
def test_threads_are_asked_for_gone_on_with_or_measured(
    asked: int | None, kept: str | None, begun: bool, said: bool, tmp_path: Path
) -> None:
    file, shown = tmp_path / "threads", io.StringIO()
    if kept is not None:
        file.write_text(kept, encoding="ascii")
    set_threads(asked, file, begun=begun, hidden=16, rows=8, reporter=Reporter(shown))
    events = [json.loads(line) for line in shown.getvalue().splitlines()]
    assert [(event["event"], event["of"]) for event in events] == ([("threads", 2)] if said else [])
    assert file.read_text(encoding="ascii") == str(torch.get_num_threads())
    if not said:
        assert torch.get_num_threads() == 1
    else:
        assert events[0]["picked"] == torch.get_num_threads()
