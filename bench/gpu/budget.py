"""Keep a GPU benchmark within its time budget: estimate the remaining time, and decide what to shorten."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.gpu.scenarios import Point, trim, wanted_rounds
from bench.load.steady import LEAST_ROUNDS

OVERHEAD = 2.5
"""Seconds for each point that are spent on warm-up, reading memory and writing results."""


@dataclass(slots=True)
class TimeBudget:
    """The time budget of a run. Estimates are replaced by measured times as the run goes on."""

    seconds: float
    guess: Mapping[Point, float]
    """Maps each measuring point to estimated seconds of one round."""
    start_guess: float
    """Estimated seconds until a started server answers, before any start was measured."""
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    starts: list[float] = field(default_factory=list[float])
    seen: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    """Maps each number of streams to measured and estimated seconds of the points with so many streams."""

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def left(self) -> float:
        """Seconds that remain of the budget."""
        return self.seconds - (self.clock() - self.began)

    @property
    def start_seconds(self) -> float:
        """Expected seconds of a server's start."""
        return sum(self.starts) / len(self.starts) if self.starts else self.start_guess

    def saw(self, point: Point, rounds: int, seconds: float) -> None:
        """Record that a point took `seconds` for its `rounds`."""
        took, guessed = self.seen.get(point.streams, (0.0, 0.0))
        self.seen[point.streams] = (took + seconds, guessed + self.guess[point] * rounds)

    def round_seconds(self, point: Point) -> float:
        """Return the expected seconds of one round of a point: the estimate, scaled by how similar points
        turned out.
        """
        like = [self.seen[point.streams]] if point.streams in self.seen else list(self.seen.values())
        took, guessed = (sum(part) for part in zip(*like, strict=True)) if like else (1.0, 1.0)
        return self.guess[point] * took / guessed

    def rounds(self, todo: Sequence[Point], fresh: bool) -> dict[Point, int]:
        """Return the rounds to run for each remaining point. `fresh` is true if the first of them needs a
        server start.
        """
        costs = {point: self.round_seconds(point) for point in todo}
        return trim(costs, self.untrimmed(todo), self.left - self._fixed(todo, fresh))

    def untrimmed(self, todo: Sequence[Point]) -> dict[Point, int]:
        """Return the rounds for each point if the budget had no limit."""
        return {point: wanted_rounds(point.streams) for point in todo}

    def expected(self, todo: Sequence[Point], rounds: Mapping[Point, int], fresh: bool) -> float:
        """Return the expected seconds of all remaining points, including server starts."""
        work = sum(self.round_seconds(point) * rounds[point] for point in todo)
        return work + self._fixed(todo, fresh)

    def fits(self, point: Point, fresh: bool) -> bool:
        """True if the point can finish in time with the fewest rounds that still give a result."""
        needed = self.round_seconds(point) * LEAST_ROUNDS + OVERHEAD
        return needed + (self.start_seconds if fresh else 0) <= self.left

    def _fixed(self, todo: Sequence[Point], fresh: bool) -> float:
        starts = len({point.start for point in todo}) - (0 if fresh else 1)
        return max(0, starts) * self.start_seconds + OVERHEAD * len(todo)
