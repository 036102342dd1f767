"""Confidence intervals of shares, of differences between two shares, and of medians."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

_Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution: intervals hold the truth 95 times of 100."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, at 95% confidence where nothing else is said."""

    low: float
    high: float


def wilson(passed: int, asked: int, z: float = _Z) -> Interval:
    """The interval of a share (Wilson 1927), within 0 and 1; sensible for few questions and for 0 or all.

    `z` is the quantile of the normal distribution that goes with the confidence. Raises `ValueError` unless
    0 <= `passed` <= `asked`.
    """
    if not 0 <= passed <= asked:
        raise ValueError(f"passed is {passed} of {asked}; it must lie between 0 and that")
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
    """The interval of share(`after`) - share(`before`), by the paired percentile bootstrap.

    The questions, the same for both, are drawn again with replacement (Efron 1979), each with both of its
    results. Raises `ValueError` where the two differ in length or hold nothing.
    """
    if len(before) != len(after) or not before:
        raise ValueError(f"before has {len(before)} results and after {len(after)}; give the same, and some")
    changes = [int(new) - int(old) for old, new in zip(before, after, strict=True)]
    rng = random.Random(seed)
    found = sorted(sum(rng.choices(changes, k=len(changes))) / len(changes) for _ in range(draws))
    return Interval(found[int(0.025 * draws)], found[min(draws - 1, int(0.975 * draws))])


def difference(before: tuple[int, int], after: tuple[int, int], z: float = _Z) -> Interval:
    """The interval of share(`after`) - share(`before`), each (passed, asked), of independent questions.

    Newcombe's hybrid of two Wilson intervals (1998, method 10): sensible where shares are near 0. Without any
    questions on one side it is all that a difference can be.
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
    """The interval of the median that `values` are drawn from, whatever their distribution.

    By order statistics (Conover 1999, section 3.2): each end is wrong with a probability of at most `error`.
    None where there are too few values to say. Raises `ValueError` unless `error` lies between 0 and 0.5.
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
    """The largest r for which fewer than r of `count` tosses are heads with at most probability `error`."""
    below, rank = 0.0, 0
    while rank <= count:
        log = math.lgamma(count + 1) - math.lgamma(rank + 1) - math.lgamma(count - rank + 1)
        below += math.exp(log - count * math.log(2))
        if below > error:
            break
        rank += 1
    return rank
