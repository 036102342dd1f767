"""The measuring points of `oneseek bench compare`: combinations of an endpoint and a load, each with its
results for A and B.
"""

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
    """A measuring point of a comparison: a load at an endpoint, the same for both servers."""

    endpoint: str
    shape: LoadShape
    options: MeasureOptions

    @property
    def name(self) -> str:
        """Name of the measuring point for people, such as `completions, 64 users`."""
        return f"{self.endpoint}, {self.shape.label}"


def read_points(given: argparse.Namespace) -> list[ComparePoint]:
    """Return a measuring point for every endpoint with every number of users that the flags list. Raises
    `BenchMistakeError` if an endpoint or a number is invalid.
    """
    endpoints = given.endpoint.split(",")
    unknown = [name for name in endpoints if name not in PATHS]
    if unknown:
        raise BenchMistakeError(
            f"--endpoint names the unknown endpoint {unknown[0]!r}; use names of {', '.join(PATHS)}"
        )
    if 0 in given.users:
        raise BenchMistakeError("--users contains 0; use numbers above 0")
    found: list[ComparePoint] = []
    for endpoint in endpoints:
        for users in given.users or (0,):
            one = argparse.Namespace(**(vars(given) | {"endpoint": endpoint, "users": users}))
            found.append(ComparePoint(endpoint, load_shape(one), measure_options(one)))
    return found


@dataclass(frozen=True, slots=True)
class PointGate:
    """The figures in which server B must be good enough at a measuring point, and the threshold for the ratio
    of B's figure to server A's.
    """

    figures: Sequence[str]
    threshold: float
    kind: RatioGate


@dataclass(frozen=True, slots=True)
class ComparedPoint:
    """The results of the compared servers A and B at one measuring point, a load at an endpoint."""

    point: ComparePoint | None
    """Endpoint and load of the results. None if the results are from two reports."""
    rounds: Mapping[str, Sequence[RoundFigures]]
    paired: bool
    """True if servers A and B were measured in turn. False if the results are from two reports."""
    ratios: Mapping[str, RatioInterval] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "ratios", compare(self.rounds["a"], self.rounds["b"], self.paired))

    @property
    def name(self) -> str:
        """Name of the measuring point in the printed output."""
        return self.point.name if self.point else "two reports"

    @property
    def shares(self) -> dict[str, float | None]:
        """Maps `a` (server A) and `b` (server B) to the fraction of the device's theoretical token rate that
        the server reached, as a median over the rounds. None if the theoretical rate is unknown.
        """
        return {label: median_of(found, SHARE) for label, found in self.rounds.items()}

    def judged(self, gate: PointGate) -> dict[str, bool]:
        """Map each figure of `gate` to true if server B is good enough compared with server A. A figure that
        is missing in a round maps to false.
        """
        return {
            name: name in self.ratios
            and passes(self.ratios[name], COMPARED[name][1], gate.threshold, gate.kind)
            for name in gate.figures
        }

    def to_json(self, gate: PointGate) -> dict[str, Any]:
        """Return the measuring point with its ratios and rounds, as the result file stores it."""
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
        """Return the results of the measuring point as lines of a printed table."""
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
        return lines + [f"{name}: the figure is missing in a round, so the gate FAILED" for name in missing]
