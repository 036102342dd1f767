"""Keeps a run inside its time: what the rest should take by what the points so far took, and what to trim."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from bench.gpu.scenarios import Point, trim, wanted_rounds
from bench.load.steady import LEAST_ROUNDS

OVERHEAD = 2.5
"""Seconds of warm-up, reading memory and writing results for each point."""


@dataclass(slots=True)
class TimeBudget:
    """The time that a run may take; guesses are replaced by what is seen."""

    seconds: float
    guess: Mapping[Point, float]
    """Seconds of one round of each point, guessed beforehand."""
    start_guess: float
    """Seconds until a server answers, guessed beforehand."""
    clock: Callable[[], float] = time.monotonic
    began: float = field(init=False)
    starts: list[float] = field(default_factory=list[float])
    seen: dict[int, tuple[float, float]] = field(default_factory=dict[int, tuple[float, float]])
    """Streams → seconds that their points took, and that were guessed for them."""

    def __post_init__(self) -> None:
        self.began = self.clock()

    @property
    def left(self) -> float:
        """Seconds that remain."""
        return self.seconds - (self.clock() - self.began)

    @property
    def start_seconds(self) -> float:
        """What a start should take."""
        return sum(self.starts) / len(self.starts) if self.starts else self.start_guess

    def saw(self, point: Point, rounds: int, seconds: float) -> None:
        """A point took `seconds` for its `rounds`."""
        took, guessed = self.seen.get(point.streams, (0.0, 0.0))
        self.seen[point.streams] = (took + seconds, guessed + self.guess[point] * rounds)

    def round_seconds(self, point: Point) -> float:
        """What one round of a point should take: the guess, scaled by what its like took, else by all."""
        like = [self.seen[point.streams]] if point.streams in self.seen else list(self.seen.values())
        took, guessed = (sum(part) for part in zip(*like, strict=True)) if like else (1.0, 1.0)
        return self.guess[point] * took / guessed

    def rounds(self, todo: Sequence[Point], fresh: bool) -> dict[Point, int]:
        """Rounds for each point to do; `fresh` where the first of them needs a start too."""
        costs = {point: self.round_seconds(point) for point in todo}
        return trim(costs, self.untrimmed(todo), self.left - self._fixed(todo, fresh))

    def untrimmed(self, todo: Sequence[Point]) -> dict[Point, int]:
        """Rounds for each point where time is no matter."""
        return {point: wanted_rounds(point.streams) for point in todo}

    def expected(self, todo: Sequence[Point], rounds: Mapping[Point, int], fresh: bool) -> float:
        """Seconds that the points to do should take, starts and all."""
        work = sum(self.round_seconds(point) * rounds[point] for point in todo)
        return work + self._fixed(todo, fresh)

    def fits(self, point: Point, fresh: bool) -> bool:
        """Whether the point can end in time with the fewest rounds that tell anything."""
        needed = self.round_seconds(point) * LEAST_ROUNDS + OVERHEAD
        return needed + (self.start_seconds if fresh else 0) <= self.left

    def _fixed(self, todo: Sequence[Point], fresh: bool) -> float:
        starts = len({point.start for point in todo}) - (0 if fresh else 1)
        return max(0, starts) * self.start_seconds + OVERHEAD * len(todo)
