"""Measures the points of a comparison: each load at each endpoint, on both sides."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from bench.cli.options import BenchMistakeError, load_shape, measure_options
from bench.figures.compared import COMPARED, RoundFigures, compare, median_of
from bench.figures.intervals import RatioGate, RatioInterval, passes
from bench.scenarios.plan import PATHS
from bench.suite.measure import LoadShape, MeasureOptions
from bench.suite.rounds import SHARE


@dataclass(frozen=True, slots=True)
class ComparePoint:
    """One load at one endpoint, the same for both sides."""

    endpoint: str
    shape: LoadShape
    options: MeasureOptions

    @property
    def name(self) -> str:
        """Its name for people, such as `completions, 64 users`."""
        return f"{self.endpoint}, {self.shape.label}"


def read_points(given: argparse.Namespace) -> list[ComparePoint]:
    """Every endpoint with every number of users. Raises `BenchMistakeError` for one that is not valid."""
    endpoints = given.endpoint.split(",")
    unknown = [name for name in endpoints if name not in PATHS]
    if unknown:
        raise BenchMistakeError(f"--endpoint {unknown[0]!r} is unknown; use some of {', '.join(PATHS)}")
    if 0 in given.users:
        raise BenchMistakeError("--users 0 is invalid; use numbers above 0")
    found: list[ComparePoint] = []
    for endpoint in endpoints:
        for users in given.users or (0,):
            one = argparse.Namespace(**(vars(given) | {"endpoint": endpoint, "users": users}))
            found.append(ComparePoint(endpoint, load_shape(one), measure_options(one)))
    return found


@dataclass(frozen=True, slots=True)
class PointGate:
    """The figures and the threshold that decide if a point passes."""

    figures: Sequence[str]
    threshold: float
    kind: RatioGate


@dataclass(frozen=True, slots=True)
class ComparedPoint:
    """The rounds of both sides at one point, by `a` and `b`."""

    point: ComparePoint | None
    """The load at this point; None if two reports are compared."""
    rounds: Mapping[str, Sequence[RoundFigures]]
    paired: bool
    """True if the sides took turns; else they are two reports."""
    ratios: Mapping[str, RatioInterval] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", compare(self.rounds["a"], self.rounds["b"], self.paired))

    @property
    def name(self) -> str:
        """The point's name in the printed output."""
        return self.point.name if self.point else "two reports"

    @property
    def shares(self) -> dict[str, float | None]:
        """Maps each side to the median share of the limit of its device; None if that is not known."""
        return {label: median_of(found, SHARE) for label, found in self.rounds.items()}

    def judged(self, gate: PointGate) -> dict[str, bool]:
        """Maps each figure to whether B is good enough; a figure that was not measured in every round is
        not.
        """
        return {
            name: name in self.ratios
            and passes(self.ratios[name], COMPARED[name][1], gate.threshold, gate.kind)
            for name in gate.figures
        }

    def to_json(self, gate: PointGate) -> dict[str, Any]:
        """Its part of the result."""
        judged = self.judged(gate)
        asked = {"endpoint": self.point.endpoint, "load": asdict(self.point.shape)} if self.point else {}
        return {
            **asked,
            "passed": all(judged.values()),
            "judged": judged,
            "ratios": {name: asdict(ratio) for name, ratio in self.ratios.items()},
            SHARE: self.shares,
            "rounds": self.rounds,
        }

    def lines(self, gate: PointGate) -> list[str]:
        """The point's results as a printed table."""
        judged = self.judged(gate)
        known = [f"{label.upper()} {share:.1%}" for label, share in self.shares.items() if share is not None]
        reached = f"; share of the limit: {', '.join(known)}" if known else ""
        lines = [f"{self.name}, {len(self.rounds['a'])} rounds{reached}"]
        lines.append(f"{'figure':<20}{'B / A':>8}{'95% interval':>20}  better  gate")
        for name, ratio in self.ratios.items():
            verdict = {True: "passed", False: "FAILED"}[judged[name]] if name in judged else ""
            bounds = f"{ratio.low:.3f} to {ratio.high:.3f}"
            line = f"{name:<20}{ratio.ratio:>8.3f}{bounds:>20}  {COMPARED[name][1]:<6}  {verdict}"
            lines.append(line.rstrip())
        missing = [name for name in judged if name not in self.ratios]
        return lines + [f"{name}: not measured in every round, so the gate FAILED" for name in missing]
