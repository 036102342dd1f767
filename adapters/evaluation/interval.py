"""Confidence intervals of shares, and of the difference between two shares of the same questions."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass

_Z = 1.959963984540054
"""The 97.5th percentile of the normal distribution: intervals hold the truth 95 times of 100."""


@dataclass(frozen=True, slots=True)
class Interval:
    """From `low` to `high`, at 95% confidence."""

    low: float
    high: float


def wilson(passed: int, asked: int) -> Interval:
    """The interval of a share (Wilson 1927), within 0 and 1; sensible for few questions and for 0 or all.

    Raises `ValueError` unless 0 <= `passed` <= `asked`.
    """
    if not 0 <= passed <= asked:
        raise ValueError(f"passed is {passed} of {asked}; it must lie between 0 and that")
    if asked == 0:
        return Interval(0.0, 1.0)
    share, z2 = passed / asked, _Z * _Z
    centre = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = _Z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked)) / (1 + z2 / asked)
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
