"""Refusals of one share leave apart."""

from __future__ import annotations

import pytest

from server.asgi.pace import INTERVAL, LONGEST, MOST_SHARES, RefusalPace


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def test_a_crowd_of_one_share_leaves_one_after_another(clock: Clock) -> None:
    pace = RefusalPace(clock)
    delays = [pace.delay("key", "sv") for _ in range(40)]
    assert delays == pytest.approx([INTERVAL * number for number in range(40)])
    assert pace.delay("key", "en") == pace.delay("other", "sv") == 0.0, "other shares are not held for it"


def test_one_that_comes_alone_is_not_held(clock: Clock) -> None:
    pace = RefusalPace(clock)
    for _ in range(10):
        assert pace.delay("key", "sv") == 0.0
        clock.now += INTERVAL


def test_none_is_held_for_long(clock: Clock) -> None:
    pace = RefusalPace(clock)
    delays = [pace.delay("key", "sv") for _ in range(1000)]
    assert max(delays) <= LONGEST
    assert delays[-1] == 0.0, "what cannot leave in time leaves at once"


def test_what_is_remembered_is_bounded(clock: Clock) -> None:
    pace = RefusalPace(clock)
    for number in range(3 * MOST_SHARES):
        pace.delay(f"key {number}", "sv")
    assert pace.delay("key 1", "sv") > 0.0
    assert pace.delay(f"key {3 * MOST_SHARES - 1}", "sv") == 0.0
    clock.now += 1.0
    pace.delay("key", "sv")
    assert pace.delay("key", "sv") > 0.0, "what has passed makes room"
