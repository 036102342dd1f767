"""What became of answers, kept for a while, and whether one version's are worse than another's. Pure."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist, median
from typing import NamedTuple

from adapters.evaluation.interval import Interval, difference
from adapters.evaluation.interval import median as median_interval
from server.config.settings import RolloutOptions
from server.metrics.pace import Pace

MOST = 4096
"""Answers that a window remembers."""
ERROR = 0.001
"""Probability with which either end of an interval is wrong: small, as all are looked at every second."""
_Z = NormalDist().inv_cdf(1 - ERROR)


class AnswerOutcome(NamedTuple):
    """One answer, or its failure."""

    at: float
    """Seconds of `time.monotonic()`."""
    failed: bool
    """Whether the server failed; a client's mistake or its going away is not an outcome."""
    first: float | None = None
    """Seconds from the engine's call to the first token; None without one."""
    between: float | None = None
    """Mean seconds from token to token after the first delta; None without several."""


class Window:
    """The latest outcomes of one version."""

    __slots__ = ("_outcomes", "count")

    def __init__(self) -> None:
        self._outcomes = deque[AnswerOutcome](maxlen=MOST)
        self.count = 0
        """Outcomes since its making."""

    def add_failure(self) -> None:
        """Remember a failure."""
        self._outcomes.append(AnswerOutcome(time.monotonic(), True))
        self.count += 1

    def add_answer(self, pace: Pace) -> None:
        """Remember a whole answer."""
        self._outcomes.append(AnswerOutcome(time.monotonic(), False, pace.first, pace.between))
        self.count += 1

    def outcomes(self) -> tuple[AnswerOutcome, ...]:
        """What it remembers, oldest first."""
        return tuple(self._outcomes)


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """How one version does beside another."""

    problem: str
    """Why it must not go on; empty where nothing says so."""
    figures: dict[str, float]
    """What that was decided by: counts, shares, and milliseconds."""


def judge_trial(
    candidate: Sequence[AnswerOutcome], active: Sequence[AnswerOutcome], limits: RolloutOptions, now: float
) -> TrialVerdict:
    """Whether `candidate` is worse than `active` beyond `limits`, over the time that both windows cover.

    It is where the interval of the difference says so, not the figures alone: Newcombe's for the shares of
    failures, and for latency the intervals of both medians, with the ends that are nearest to each other.
    """
    full = [outcomes[0].at for outcomes in (candidate, active) if len(outcomes) == MOST]
    start = max([now - limits.window_seconds, *full])
    ours = [outcome for outcome in candidate if outcome.at >= start]
    theirs = [outcome for outcome in active if outcome.at >= start]
    failed, failed_active = sum(one.failed for one in ours), sum(one.failed for one in theirs)
    figures: dict[str, float] = {
        "requests": len(ours),
        "errors": failed,
        "active_requests": len(theirs),
        "active_errors": failed_active,
    }
    problems: list[str] = []
    apart = difference((failed_active, len(theirs)), (failed, len(ours)), _Z).low
    if len(ours) >= limits.min_requests and apart > limits.error_margin:
        problems.append(
            f"{failed} of {len(ours)} answers failed, and {failed_active} of {len(theirs)} of the active "
            f"version's: at least {apart:.1%} more, where {limits.error_margin:.1%} is allowed"
        )
    for name, what in (("first", "to the first token"), ("between", "between tokens")):
        slow = _slower(_values(ours, name), _values(theirs, name), limits, name, figures)
        if slow is not None:
            problems.append(
                f"the median time {what} is at least {slow:.2f} times the active version's, where "
                f"{limits.latency_ratio:g} is allowed"
            )
    return TrialVerdict("; ".join(problems), figures)


def _values(outcomes: Sequence[AnswerOutcome], name: str) -> list[float]:
    """In order, so that it is sorted once."""
    found = (getattr(outcome, name) for outcome in outcomes)
    return sorted(value for value in found if value is not None)


def _slower(
    ours: list[float], theirs: list[float], limits: RolloutOptions, name: str, figures: dict[str, float]
) -> float | None:
    """How many times slower it is at least, where that is beyond the limit; notes the medians."""
    for values, key in ((ours, f"{name}_ms"), (theirs, f"active_{name}_ms")):
        if values:
            figures[key] = round(median(values) * 1000, 3)
    if min(len(ours), len(theirs)) < limits.min_requests:
        return None
    slow, fast = median_interval(ours, ERROR), median_interval(theirs, ERROR)
    if not isinstance(slow, Interval) or not isinstance(fast, Interval) or fast.high <= 0:
        return None
    ratio = slow.low / fast.high
    return ratio if ratio > limits.latency_ratio else None
