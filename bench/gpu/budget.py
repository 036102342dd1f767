"""Keep a GPU benchmark within its time budget: estimate the remaining time, and decide how many requests each
measuring point sends.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.gpu.scenarios import Point, trim, wanted_rounds
from bench.load.steady import LEAST_ROUNDS

OVERHEAD = 2.5
"""Seconds that each measuring point needs besides its rounds: for warm-up, reading the memory in use and
writing results.
"""


@dataclass(slots=True)
class TimeBudget:
    """The time budget of a benchmark run. Measured times replace the estimates as the run goes on."""

    seconds: float
    guess: Mapping[Point, float]
    """Maps each measuring point to the estimated seconds of one round, in which each stream sends a
    request.
    """
    start_guess: float
    """Estimated seconds until a started server answers. Used until the first start has been measured."""
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    starts: list[float] = field(default_factory=list[float])
    seen: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    """Maps each number of concurrent streams to two sums over the finished measuring points with this number:
    their measured seconds, and their estimated seconds.
    """

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def left(self) -> float:
        """Seconds of the time budget that are left."""
        return self.seconds - (self.clock() - self.began)

    @property
    def start_seconds(self) -> float:
        """Expected seconds of a server's start: the mean of the measured starts, or an estimate before the
        first.
        """
        return sum(self.starts) / len(self.starts) if self.starts else self.start_guess

    def saw(self, point: Point, rounds: int, seconds: float) -> None:
        """Record that `rounds` rounds of a measuring point took `seconds` seconds in total. In a round, each
        stream sends one request.
        """
        took, guessed = self.seen.get(point.streams, (0.0, 0.0))
        self.seen[point.streams] = (took + seconds, guessed + self.guess[point] * rounds)

    def round_seconds(self, point: Point) -> float:
        """Return the expected seconds of one round of a measuring point, in which each stream sends one
        request. The estimate is scaled by the ratio of measured to estimated time at points with as many
        streams.
        """
        like = [self.seen[point.streams]] if point.streams in self.seen else list(self.seen.values())
        took, guessed = (sum(part) for part in zip(*like, strict=True)) if like else (1.0, 1.0)
        return self.guess[point] * took / guessed

    def rounds(self, todo: Sequence[Point], fresh: bool) -> dict[Point, int]:
        """Return how many rounds to run at each remaining measuring point, so that all fit the time left. In
        a round, each stream sends one request. `fresh` is true if the first point needs a server start.
        """
        costs = {point: self.round_seconds(point) for point in todo}
        return trim(costs, self.untrimmed(todo), self.left - self._fixed(todo, fresh))

    def untrimmed(self, todo: Sequence[Point]) -> dict[Point, int]:
        """Return how many rounds each measuring point would get without a time limit. In a round, each stream
        sends one request.
        """
        return {point: wanted_rounds(point.streams) for point in todo}

    def expected(self, todo: Sequence[Point], rounds: Mapping[Point, int], fresh: bool) -> float:
        """Return the expected seconds of all remaining measuring points, including server starts. `fresh` is
        true if the first point needs a server start.
        """
        work = sum(self.round_seconds(point) * rounds[point] for point in todo)
        return work + self._fixed(todo, fresh)

    def fits(self, point: Point, fresh: bool) -> bool:
        """True if the time left is enough to measure the point with the fewest requests that still give a
        result. `fresh` is true if the point needs a server start.
        """
        needed = self.round_seconds(point) * LEAST_ROUNDS + OVERHEAD
        return needed + (self.start_seconds if fresh else 0) <= self.left

    def _fixed(self, todo: Sequence[Point], fresh: bool) -> float:
        starts = len({point.start for point in todo}) - (0 if fresh else 1)
        return max(0, starts) * self.start_seconds + OVERHEAD * len(todo)
