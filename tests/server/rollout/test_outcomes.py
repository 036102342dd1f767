"""When a version is worse than another, and when that is only chance."""

from __future__ import annotations

import random
import re
from time import monotonic

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.evaluation.interval import difference, median, wilson
from server.config.settings import RolloutOptions, SettingsError
from server.metrics.pace import Pace
from server.rollout.outcomes import MOST, AnswerOutcome, Window, judge_trial, summarize

OPTIONS = RolloutOptions()


def outcomes(failed: int, count: int, at: float = 0.0) -> list[AnswerOutcome]:
    return [AnswerOutcome(at, number < failed) for number in range(count)]


def paced(seconds: list[float]) -> list[AnswerOutcome]:
    return [AnswerOutcome(0.0, False, value, value / 10) for value in seconds]


def test_figures_are_of_the_window_alone() -> None:
    found = summarize([*outcomes(3, 3, at=1.0), *outcomes(1, 4, at=10.0), *paced([])], 5.0)
    assert (found.answers, found.errors, found.first_token_ms, found.between_tokens_ms) == (4, 1, None, None)
    found = summarize(paced([0.1, 0.3, 0.2]), 0.0)
    assert (found.answers, found.errors) == (3, 0)
    assert (found.first_token_ms, found.between_tokens_ms) == (200.0, 20.0)


def test_newcombe_s_own_examples() -> None:
    # Newcombe (1998), table II, method 10: 56/70 - 48/80 and 9/10 - 3/10.
    found = difference((48, 80), (56, 70))
    assert (round(found.low, 4), round(found.high, 4)) == (0.0524, 0.3339)
    found = difference((3, 10), (9, 10))
    assert (round(found.low, 4), round(found.high, 4)) == (0.1705, 0.8090)
    assert difference((0, 0), (5, 5)).low == -1


@given(st.integers(1, 60), st.data())
def test_a_difference_holds_the_shares_and_is_turned_by_exchange(count: int, data: st.DataObject) -> None:
    first, second = (data.draw(st.integers(0, count)) for _ in range(2))
    there, back = difference((first, count), (second, count)), difference((second, count), (first, count))
    assert there.low <= (second - first) / count <= there.high
    assert there.low == pytest.approx(-back.high)
    assert wilson(first, count, 1.0).low >= wilson(first, count, 3.0).low


@settings(deadline=None, max_examples=10)
@given(st.integers(15, 80), st.integers(0, 2**32))
def test_the_interval_of_a_median_holds_it_as_often_as_it_says(count: int, seed: int) -> None:
    rng, missed = random.Random(seed), 0
    for _ in range(400):
        found = median([rng.lognormvariate(0, 1) for _ in range(count)], 0.05)
        assert found is not None
        missed += not found.low <= 1.0 <= found.high
    # Wrong with at most 5% on either side: 40 of 400, and five deviations.
    assert missed <= 70


def test_a_median_of_few_values_says_nothing() -> None:
    assert median([1.0] * 9, 0.001) is None
    found = median([float(value) for value in range(20)], 0.001)
    assert found is not None
    assert (found.low, found.high) == (2.0, 17.0), "P(at most 2 heads of 20) is 0.0002, of 3 it is 0.0013"
    with pytest.raises(ValueError, match=r"error\b.* 0\.6\b"):
        median([1.0], 0.6)


def test_failures_are_found_as_soon_as_they_are_no_chance() -> None:
    assert judge_trial(outcomes(19, 19), outcomes(0, 100), OPTIONS, 1.0).problem == "", "too few"
    found = judge_trial(outcomes(20, 20), outcomes(0, 100), OPTIONS, 1.0)
    assert all(count in found.problem for count in ("20 of 20", "0 of 100"))
    assert found.figures == {"requests": 20, "errors": 20, "active_requests": 100, "active_errors": 0}
    assert judge_trial(outcomes(1, 20), outcomes(0, 100), OPTIONS, 1.0).problem == "", "one is chance"
    assert judge_trial(outcomes(50, 100), outcomes(50, 100), OPTIONS, 1.0).problem == "", "both are as bad"
    assert judge_trial(outcomes(20, 20), [], OPTIONS, 1.0).problem == "", "nothing to compare with"


@settings(deadline=None, max_examples=10)
@given(st.floats(0, 0.3), st.integers(0, 2**32))
def test_equal_versions_are_let_be(share: float, seed: int) -> None:
    rng = random.Random(seed)

    def drawn(count: int) -> list[AnswerOutcome]:
        return [
            AnswerOutcome(0.0, rng.random() < share, rng.lognormvariate(-3, 0.7), rng.lognormvariate(-5, 0.3))
            for _ in range(count)
        ]

    judged = [judge_trial(drawn(100), drawn(900), OPTIONS, 1.0) for _ in range(10)]
    assert [verdict.problem for verdict in judged if verdict.problem] == []


def test_a_slow_version_is_found_and_one_that_is_a_little_slower_is_not() -> None:
    rng = random.Random(1)
    active = [rng.lognormvariate(-3, 0.3) for _ in range(300)]
    slower = [3.5 * rng.lognormvariate(-3, 0.3) for _ in range(60)]
    little = [1.5 * rng.lognormvariate(-3, 0.3) for _ in range(60)]
    found = judge_trial(paced(slower), paced(active), OPTIONS, 1.0)
    assert re.search(r"\bfirst\b.*\bbetween\b", found.problem)
    assert found.figures["first_ms"] > 3 * found.figures["active_first_ms"]
    assert judge_trial(paced(little), paced(active), OPTIONS, 1.0).problem == ""
    assert judge_trial(paced(slower[:19]), paced(active), OPTIONS, 1.0).problem == "", "too few"
    lenient = RolloutOptions(latency_ratio=5)
    assert judge_trial(paced(slower), paced(active), lenient, 1.0).problem == ""


def test_both_are_judged_over_the_same_time() -> None:
    old, new = outcomes(20, 20, at=0.0), outcomes(0, 20, at=500.0)
    assert judge_trial(old, outcomes(0, 100, at=0.0), OPTIONS, 100.0).problem
    assert judge_trial([*old, *new], outcomes(0, 100, at=500.0), OPTIONS, 700.0).problem == "", (
        "the old are out"
    )
    full = outcomes(0, MOST, at=90.0)
    assert judge_trial(old, full, OPTIONS, 100.0).figures["requests"] == 0, "a full window begins later"


def test_a_window_forgets_the_oldest_and_counts_all() -> None:
    window = Window()
    for _ in range(MOST + 5):
        window.add_failure()
    assert (len(window.outcomes()), window.count) == (MOST, MOST + 5)
    assert abs(window.outcomes()[-1].at - monotonic()) < 5


def test_a_pace_is_of_tokens_and_of_nothing_where_there_are_none() -> None:
    pace = Pace()
    pace.tokens(0)
    assert (pace.first, pace.between) == (None, None)
    pace.tokens(1)
    assert pace.between is None
    pace.tokens(3)
    pace.tokens(0)
    assert pace.first is not None
    assert pace.first > 0
    assert pace.between is not None
    assert pace.between >= 0


@pytest.mark.parametrize(
    ("name", "value"),
    [("min_requests", 0), ("error_margin", 1.5), ("latency_ratio", 0.5), ("window_seconds", 0)],
)
def test_limits_that_make_no_sense_are_refused(name: str, value: float) -> None:
    with pytest.raises(SettingsError, match=f"rollout.{name}"):
        RolloutOptions(**{name: value})  # pyright: ignore[reportArgumentType] - any of them
