"""Ratios of two sets of rounds with bootstrap confidence intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 10_000
LEAST_ROUNDS = 7
"""Fewest rounds for an interval. With fewer, the interval would be too narrow to be trusted."""

Better = Literal["higher", "lower"]
RatioGate = Literal["no-worse", "worse"]


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """The ratio of B to A: its median, and the bounds of its 95% interval."""

    ratio: float
    low: float
    high: float
    rounds: int
    paired: bool
    """True if the rounds of A and B were measured in turn. False if they are from two reports."""


def ratio_interval(
    a: Sequence[float], b: Sequence[float], paired: bool, confidence: float = 0.95, seed: int = 0
) -> RatioInterval:
    """The ratio B / A by the percentile bootstrap (Efron and Tibshirani, 1993, chapter 13).

    Paired: the median of the rounds' ratios, with rounds resampled. Else the ratio of the medians, with
    each side resampled by itself. Raises `ValueError` for no rounds, values at or below 0, or pairs of
    different number.
    """
    if not a or not b or (paired and len(a) != len(b)):
        raise ValueError(f"rounds: {len(a)} of A and {len(b)} of B; give the same number of both")
    if min(*a, *b) <= 0:
        raise ValueError("a ratio needs values above 0 on both sides")
    random, first, second = np.random.default_rng(seed), np.array(a), np.array(b)
    if paired:
        ratios = second / first
        drawn = np.median(random.choice(ratios, (RESAMPLES, len(ratios))), axis=1)
        middle = float(np.median(ratios))
    else:
        over = np.median(random.choice(second, (RESAMPLES, len(second))), axis=1)
        drawn = over / np.median(random.choice(first, (RESAMPLES, len(first))), axis=1)
        middle = float(np.median(second) / np.median(first))
    tail = (1 - confidence) / 2 * 100
    low, high = (float(bound) for bound in np.percentile(drawn, (tail, 100 - tail)))
    return RatioInterval(round(middle, 4), round(low, 4), round(high, 4), min(len(a), len(b)), paired)


def passes(found: RatioInterval, better: Better, threshold: float, gate: RatioGate) -> bool:
    """Return if B is good enough compared with A. `threshold` is the lowest acceptable ratio of a figure that
    should be high; for one that should be low its inverse is the most acceptable. `no-worse` asks that the
    whole interval is acceptable. `worse` asks only that some of it is, and so fails only if B is worse beyond
    doubt.
    """
    # As for a figure that should be high.
    low, high = (found.low, found.high) if better == "higher" else (1 / found.high, 1 / found.low)
    return (low if gate == "no-worse" else high) >= threshold
