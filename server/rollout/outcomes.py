"""Judges, by the outcomes of recent answers, whether one version does worse than another. No side effects."""

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
"""Maximum number of recent answers to keep for one version."""
ERROR = 0.001
"""Error probability at each end of a confidence interval; small, because versions are compared every
second.
"""
_Z = NormalDist().inv_cdf(1 - ERROR)


class AnswerOutcome(NamedTuple):
    """The outcome of one answer: whether it failed, and how fast it was."""

    at: float
    """When the request ended, in seconds of `time.monotonic()`."""
    failed: bool
    """True if the server failed to answer. Errors of clients and disconnects are not recorded."""
    first: float | None = None
    """Seconds from the call of the engine to the first token; None without a token."""
    between: float | None = None
    """Mean seconds between tokens after the first delta; None for a single token."""


class Window:
    """The outcomes of the latest answers of one version."""

    __slots__ = ("_outcomes", "count")

    def __init__(self) -> None:
        self._outcomes = deque[AnswerOutcome](maxlen=MOST)
        self.count = 0
        """Number of outcomes since the start."""

    def add_failure(self) -> None:
        """Add a request that failed."""
        self._outcomes.append(AnswerOutcome(time.monotonic(), True))
        self.count += 1

    def add_answer(self, pace: Pace) -> None:
        """Add a request that was answered completely."""
        self._outcomes.append(AnswerOutcome(time.monotonic(), False, pace.first, pace.between))
        self.count += 1

    def outcomes(self) -> tuple[AnswerOutcome, ...]:
        """Return the outcomes, oldest first."""
        return tuple(self._outcomes)


@dataclass(frozen=True, slots=True)
class TrialVerdict:
    """The result of comparing a version on trial with the active one."""

    problem: str
    """Why the trial must end; empty if it may continue."""
    figures: dict[str, float]
    """The numbers behind the decision: requests, errors, and median times in milliseconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionFigures:
    """The measurements of one version over the time that trials look back (`window_seconds`)."""

    answers: int
    """Number of requests, including failures."""
    errors: int
    first_token_ms: float | None
    """Median milliseconds from the call of the engine to the first token; None without an answer."""
    between_tokens_ms: float | None
    """Median over all answers of the mean milliseconds between their tokens; None without such an answer."""


def summarize(outcomes: Sequence[AnswerOutcome], start: float) -> VersionFigures:
    """Summarize the outcomes since the time `start`, in seconds of `time.monotonic()`."""
    since = [outcome for outcome in outcomes if outcome.at >= start]
    first, between = _values(since, "first"), _values(since, "between")
    return VersionFigures(
        answers=len(since),
        errors=sum(outcome.failed for outcome in since),
        first_token_ms=round(median(first) * 1000, 3) if first else None,
        between_tokens_ms=round(median(between) * 1000, 3) if between else None,
    )


def judge_trial(
    candidate: Sequence[AnswerOutcome], active: Sequence[AnswerOutcome], limits: RolloutOptions, now: float
) -> TrialVerdict:
    """Judge if `candidate` is worse than `active` beyond `limits`, over the time that both windows cover.

    The candidate counts as worse only if confidence intervals show this: for failure rates, Newcombe's
    interval for their difference; for latency, the intervals of both medians, compared at their nearest ends.
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
            f"{failed} of {len(ours)} answers of this version failed, against {failed_active} of "
            f"{len(theirs)} of the active version: a failure rate at least {apart:.1%} higher; the limit is "
            f"{limits.error_margin:.1%} (error_margin)"
        )
    for name, what in (("first", "to the first token"), ("between", "between tokens")):
        slow = _slower(_values(ours, name), _values(theirs, name), limits, name, figures)
        if slow is not None:
            problems.append(
                f"the median time {what} of this version is at least {slow:.2f} times the active "
                f"version's; the limit is {limits.latency_ratio:g} (latency_ratio)"
            )
    return TrialVerdict("; ".join(problems), figures)


def _values(outcomes: Sequence[AnswerOutcome], name: str) -> list[float]:
    """Return one measurement of all outcomes that have it, in ascending order."""
    found = (getattr(outcome, name) for outcome in outcomes)
    return sorted(value for value in found if value is not None)


def _slower(
    ours: list[float], theirs: list[float], limits: RolloutOptions, name: str, figures: dict[str, float]
) -> float | None:
    """Return the smallest ratio of the medians that their intervals allow, if it exceeds the limit; else
    None.

    Adds the medians, in milliseconds, to `figures`.
    """
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
