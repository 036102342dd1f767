"""From records to figures, on numbers worked by hand."""

from __future__ import annotations

import pytest

from bench.figures.compared import compare, round_figures
from bench.figures.intervals import passes, ratio_interval
from bench.figures.level import ServiceLevel
from bench.figures.spread import jain, spread_ms
from bench.figures.summary import summarize
from tests.bench.figures.records import record

LEVEL = ServiceLevel()


def test_percentiles_are_in_milliseconds() -> None:
    spread = spread_ms(number / 1000 for number in range(101))
    assert spread is not None
    assert (spread.count, spread.p50, spread.p90, spread.p95, spread.p99) == (101, 50, 90, 95, 99)
    assert spread_ms([]) is None


def test_jains_index() -> None:
    assert jain([3, 3, 3]) == pytest.approx(1)
    assert jain([1, 0, 0, 0]) == pytest.approx(0.25)
    assert jain([1, 2]) == pytest.approx(9 / 10)
    assert jain([]) is None


def test_a_request_keeps_to_the_level_by_its_own_times() -> None:
    assert LEVEL.keeps(record())
    assert not LEVEL.keeps(record(arrivals=(0.51, 0.52)))
    assert not LEVEL.keeps(record(arrivals=(0.1, 0.2)))
    assert not LEVEL.keeps(record(outcome="cancelled"))
    assert LEVEL.keeps(record(intended=-0.3))
    assert not LEVEL.keeps(record(intended=-0.5)), "latency counts from the intended start"


def test_the_level_holds_at_the_95th_percentile() -> None:
    good = [record(number) for number in range(96)]
    assert LEVEL.holds([*good, *[record(arrivals=(0.9, 0.91))] * 4])
    assert not LEVEL.holds([*good[:50], *[record(arrivals=(0.9, 0.91))] * 4])
    assert not LEVEL.holds([*good, record(outcome="failed", arrivals=())])
    assert not LEVEL.holds([])


def test_the_figures_of_a_run() -> None:
    records = [
        record(1),
        record(2, model="en", language="en", expects="en", answered_by="sv@v1.0", end=0.24),
        record(3, outcome="cancelled", completion_tokens=2, arrivals=(0.1, 0.11)),
        record(4, outcome="failed", status=503, arrivals=(), completion_tokens=0, fault="status 503"),
    ]
    figures = summarize(records, 2.0, LEVEL)
    total = figures.total
    assert (total.requests, total.completed, total.cancelled, total.failed) == (4, 2, 1, 1)
    assert total.output_tokens_per_second == (4 + 4 + 2) / 2
    assert total.input_tokens_per_second == 20 / 2
    assert total.words_per_second == 3
    assert total.goodput_per_second == 1
    assert figures.statuses == {"200": 3, "503": 1}
    assert (figures.routing.judged, figures.routing.right, figures.routing.accuracy) == (2, 1, 0.5)
    assert figures.by_adapter["sv"].requests == 4
    assert figures.by_language["en"].completed == 1
    assert figures.faults == ("request 4: status 503",)
    assert not figures.level_holds


def test_fairness_is_between_the_adapters_that_answered() -> None:
    fast, slow = record(1, end=0.5, answered_by="en"), record(2, end=1.0, answered_by="sv")
    assert summarize([fast, slow], 1, LEVEL).fairness == pytest.approx(0.9)
    assert summarize([fast], 1, LEVEL).fairness is None


def test_a_closed_loop_has_a_steady_state() -> None:
    records = [
        record(n, sent=n / 10, intended=n / 10, arrivals=(n / 10 + 0.05, n / 10 + 0.09)) for n in range(10)
    ]
    assert summarize(records, 1, LEVEL, users=1).steady_tokens_per_second == pytest.approx(40, rel=0.1)
    assert summarize(records, 1, LEVEL).steady_tokens_per_second is None


def test_an_interval_holds_the_ratio_of_paired_rounds() -> None:
    a = [100, 110, 90, 105, 95, 102, 98]
    found = ratio_interval(a, [value * 1.1 for value in a], paired=True)
    assert found.ratio == found.low == found.high == pytest.approx(1.1)
    loose = ratio_interval(a, [value * 1.1 for value in reversed(a)], paired=False)
    assert loose.ratio == pytest.approx(1.1)
    assert loose.low < 1.1 < loose.high


def test_an_interval_needs_values_that_make_a_ratio() -> None:
    for a, b in (([], [1.0]), ([1.0], [0.0]), ([1.0, 2.0], [1.0])):
        with pytest.raises(ValueError, match=r"rounds|above 0"):
            ratio_interval(a, b, paired=True)


def test_the_gate_judges_the_bound_that_matters() -> None:
    noisy = ratio_interval([100, 120, 80, 100, 90, 110, 100], [95, 100, 90, 99, 97, 93, 96], paired=True)
    assert noisy.low < 0.95 < noisy.high
    assert not passes(noisy, "higher", 0.95, "no-worse")
    assert passes(noisy, "higher", 0.95, "worse")
    half = ratio_interval([2.0] * 7, [1.0] * 7, paired=True)
    assert not passes(half, "higher", 0.95, "worse")
    assert passes(half, "lower", 0.95, "no-worse"), "half of the time is better"
    double = ratio_interval([1.0] * 7, [2.0] * 7, paired=True)
    assert not passes(double, "lower", 0.95, "worse")


def test_figures_that_a_round_lacks_are_not_compared() -> None:
    total = {
        "output_tokens_per_second": 5.0,
        "words_per_second": 0.0,
        "goodput_per_second": 1.0,
        "ttft_ms": {"p50": 2.0, "p95": 3.0},
        "itl_ms": None,
        "e2e_ms": {"p50": 4.0},
    }
    found = round_figures(total)
    assert found["ttft_p95_ms"] == 3
    assert "itl_p50_ms" not in found
    ratios = compare([found] * 7, [found] * 7, paired=True)
    assert "words_per_second" not in ratios
    assert ratios["e2e_p50_ms"].ratio == 1
