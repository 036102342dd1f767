"""Confidence intervals for shares, for differences between two shares, and for medians."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution, for 95% confidence."""


@dataclass(frozen=True, slots=True)
class Interval:
    """An interval from `low` to `high`, at 95% confidence unless stated otherwise."""

    low: float
    high: float


def wilson(passed: int, asked: int, z: float = _Z) -> Interval:
    """Return the interval of a share (Wilson 1927), within 0 and 1. Works for few questions and for shares of
    0 or 1.

    `z` is the quantile of the normal distribution for the confidence. Raises `ValueError` unless 0 <=
    `passed` <= `asked`.
    """
    if not 0 <= passed <= asked:
        raise ValueError(f"passed is {passed}; it must lie between 0 and asked, {asked}")
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
    """Return the interval of share(`after`) - share(`before`), by the paired percentile bootstrap.

    Both must answer the same questions. The questions are drawn again with replacement (Efron 1979), each
    with both of its results. Raises `ValueError` if the two differ in length or are empty.
    """
    if len(before) != len(after) or not before:
        raise ValueError(
            f"before has {len(before)} results and after {len(after)}; give as many for both, at least one"
        )
    changes = [int(new) - int(old) for old, new in zip(before, after, strict=True)]
    rng = random.Random(seed)
    found = sorted(sum(rng.choices(changes, k=len(changes))) / len(changes) for _ in range(draws))
    return Interval(found[int(0.025 * draws)], found[min(draws - 1, int(0.975 * draws))])


def difference(before: tuple[int, int], after: tuple[int, int], z: float = _Z) -> Interval:
    """Return the interval of share(`after`) - share(`before`), each (passed, asked), for independent
    questions.

    Uses Newcombe's hybrid of two Wilson intervals (1998, method 10), which works for shares near 0. If one
    side has no questions, the interval covers every possible difference.
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
    """Return the interval of the median of the distribution that `values` come from, whatever its shape.

    Uses order statistics (Conover 1999, section 3.2): each end is wrong with a probability of at most
    `error`. None if there are too few values. Raises `ValueError` unless `error` lies between 0 and 0.5.
    """
    if not 0 < error < 0.5:
        raise ValueError(f"error is {error}; it must lie between 0 and 0.5")
    rank = _rank(len(values), error)
    if rank < 1:
        return None
    found = sorted(values)
    return Interval(found[rank - 1], found[-rank])


@lru_cache(1024)
def _rank(count: int, error: float) -> int:
    """Return the largest r such that fewer than r of `count` coin tosses are heads with at most probability
    `error`.
    """
    below, rank = 0.0, 0
    while rank <= count:
        log = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        below += math.exp(log - count * math.log(2))
        if below > error:
            break
        rank += 1
    return rank
