"""Confidence intervals for proportions, for differences between two proportions, and for medians."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_Z = 1.959963984540054
"""The 97.5th percentile of the standard normal distribution, for 95% confidence."""


@dataclass(frozen=True, slots=True)
class Interval:
    """A confidence interval from `low` to `high`, at 95% confidence unless the function that returns it says
    otherwise.
    """

    low: float
    high: float


def wilson(passed: int, asked: int, z: float = _Z) -> Interval:
    """Return the confidence interval of the proportion `passed` / `asked`, by Wilson's method (1927). It lies
    within 0 and 1, and is valid for few questions and for proportions of 0 or 1.

    `z` is the quantile of the normal distribution for the confidence level. Raises `ValueError` unless 0 <=
    `passed` <= `asked`.
    """
    if not 0 <= passed <= asked:
        raise ValueError(
            f"the number of correct answers is {passed}, but must be from 0 to {asked}, "
            "the number of questions"
        )
    if asked == 0:
        return Interval(0.0, 1.0)
    share, z2 = passed / asked, z * z
    centre = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked)) / (1 + z2 / asked)
    # Rounding may put an end on the wrong side of the share, where that is 0 or 1.
    return Interval(max(0.0, min(share, centre - half)), min(1.0, max(share, centre + half)))


def paired_difference(
    before: Sequence[bool], after: Sequence[bool], *, draws: int = 4000, seed: int = 0
) -> Interval:
    """Return the confidence interval of the change in the proportion of True results from `before` to
    `after`, by the paired percentile bootstrap (Efron 1979).

    Both sequences hold the results of the same questions in the same order. Each bootstrap sample draws
    questions with replacement, each with both of its results. Raises `ValueError` if the sequences are empty
    or differ in length.
    """
    if len(before) != len(after) or not before:
        raise ValueError(
            f"before the change there are {len(before)} results, and after it {len(after)}; "
            "give the results of the same questions, at least one"
        )
    changes = [int(new) - int(old) for old, new in zip(before, after, strict=True)]
    rng = random.Random(seed)
    found = sorted(sum(rng.choices(changes, k=len(changes))) / len(changes) for _ in range(draws))
    return Interval(found[int(0.025 * draws)], found[min(draws - 1, int(0.975 * draws))])


def difference(before: tuple[int, int], after: tuple[int, int], z: float = _Z) -> Interval:
    """Return the confidence interval of the proportion in `after` minus the proportion in `before`. Each
    argument is (passed, asked), and the two sets of questions are independent.

    Uses Newcombe's hybrid of two Wilson intervals (1998, method 10), which is valid for proportions near 0.
    If `asked` is 0 in either argument, the interval is -1 to 1.
    """
    if not before[1] or not after[1]:
        return Interval(-1.0, 1.0)
    first, second = before[0] / before[1], after[0] / after[1]
    of_first, of_second = wilson(*before, z), wilson(*after, z)
    return Interval(
        second - first - math.hypot(second - of_second.low, of_first.high - first),
        second - first + math.hypot(of_second.high - second, first - of_first.low),
    )


def median(values: Sequence[float], error: float) -> Interval | None:
    """Return the confidence interval of the median of the distribution from which `values` were drawn,
    whatever its shape.

    Uses order statistics (Conover 1999, section 3.2). The true median lies below the interval, or above it,
    with a probability of at most `error` each. Returns None if there are too few values. Raises `ValueError`
    unless 0 < `error` < 0.5.
    """
    if not 0 < error < 0.5:
        raise ValueError(
            f"the confidence interval's probability of error is {error}; it must be above 0 and below 0.5"
        )
    rank = _rank(len(values), error)
    if rank < 1:
        return None
    found = sorted(values)
    return Interval(found[rank - 1], found[-rank])


@lru_cache(1024)
def _rank(count: int, error: float) -> int:
    """Return the largest r for which the probability of fewer than r heads in `count` fair coin tosses is at
    most `error`.
    """
    below, rank = 0.0, 0
    while rank <= count:
        log = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        below += math.exp(log - count * math.log(2))
        if below > error:
            break
        rank += 1
    return rank
