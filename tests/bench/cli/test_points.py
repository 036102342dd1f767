"""The points of a comparison: what is read from the flags, and how a point is judged."""

from __future__ import annotations

import argparse

import pytest

from bench.cli.compare import build_parser
from bench.cli.options import BenchMistakeError
from bench.cli.points import ComparedPoint, ComparePoint, PointGate, read_points
from bench.figures.compared import RoundFigures
from bench.suite.rounds import SHARE

GATE = PointGate(("tokens_per_second", "itl_p95_ms"), 0.95, "no-worse")


def flags(*words: str) -> argparse.Namespace:
    return build_parser().parse_args(["a", "b", *words])


def point(*words: str) -> ComparePoint:
    (one,) = read_points(flags(*words))
    return one


def rounds(rate: float, wait: float, **more: float) -> list[RoundFigures]:
    return [{"tokens_per_second": rate, "itl_p95_ms": wait, **more}] * 7


def test_every_endpoint_has_every_number_of_users() -> None:
    found = read_points(flags("--users", "64,8", "--endpoint", "completions,chat", "--seed", "3"))
    assert [(one.endpoint, one.shape.users) for one in found] == [
        ("completions", 64), ("completions", 8), ("chat", 64), ("chat", 8),
    ]  # fmt: skip
    assert [one.options.plan.endpoint for one in found] == [one.endpoint for one in found]
    assert {one.options.plan.seed for one in found} == {3}
    assert len({one.name for one in found}) == 4


def test_a_rate_is_one_point() -> None:
    assert point("--rate", "2").shape.rate == 2
    assert point().shape.users == 16
    with pytest.raises(BenchMistakeError, match="--rate"):
        read_points(flags("--rate", "2", "--users", "1,2"))


def test_a_point_is_judged_by_the_figures_of_the_gate() -> None:
    good = ComparedPoint(point(), {"a": rounds(100, 10), "b": rounds(100, 10)}, True)
    assert good.judged(GATE) == {"tokens_per_second": True, "itl_p95_ms": True}
    late = ComparedPoint(point(), {"a": rounds(100, 10), "b": rounds(120, 11)}, True).to_json(GATE)
    assert late["judged"] == {"tokens_per_second": True, "itl_p95_ms": False}
    assert not late["passed"]
    assert late["ratios"]["tokens_per_second"]["low"] == 1.2
    assert (late["endpoint"], late["load"]["users"]) == ("chat", 16)


def test_what_was_not_measured_in_every_round_has_not_passed() -> None:
    part = ComparedPoint(point(), {"a": rounds(100, 10), "b": rounds(100, 0)}, True)
    assert part.judged(GATE) == {"tokens_per_second": True, "itl_p95_ms": False}
    assert any(line.startswith("itl_p95_ms") for line in part.lines(GATE))


def test_a_share_of_the_limit_is_that_of_each_side() -> None:
    with_share = rounds(100, 10, **{SHARE: 0.25})
    found = ComparedPoint(None, {"a": with_share, "b": rounds(100, 10)}, False).to_json(GATE)
    assert found[SHARE] == {"a": 0.25, "b": None}
    assert "load" not in found
