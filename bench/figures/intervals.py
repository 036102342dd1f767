"""Ratios of the figures of two servers, with bootstrap confidence intervals over the rounds of a
benchmark.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

RESAMPLES = 10_000
LEAST_ROUNDS = 7
"""Minimum number of rounds for a confidence interval. With fewer rounds, the interval is too narrow to be
trusted.
"""

Better = Literal["higher", "lower"]
RatioGate = Literal["no-worse", "worse"]


@dataclass(frozen=True, slots=True)
class RatioInterval:
    """The ratio of a figure of server B to that of server A: its median, and the bounds of its 95%
    interval.
    """

    ratio: float
    low: float
    high: float
    rounds: int
    paired: bool
    """True if the rounds of A and B were measured in turn. False if they are from two reports."""


def ratio_interval(
    a: Sequence[float], b: Sequence[float], paired: bool, confidence: float = 0.95, seed: int = 0
) -> RatioInterval:
    """Return the ratio B / A with a percentile bootstrap interval (Efron and Tibshirani, 1993, chapter 13).

    If `paired` is true, the ratio is the median of the ratios in each round, and the bootstrap resamples
    rounds. Otherwise the ratio is that of the two medians, and the bootstrap resamples A and B separately.
    Raises `ValueError` if A or B is empty or has a value at or below 0, or if paired rounds differ in number.
    """
    if not a or not b or (paired and len(a) != len(b)):
        raise ValueError(
            f"server A was measured in {len(a)} rounds and server B in {len(b)}; both need the same number, "
            "at least 1"
        )
    if min(*a, *b) <= 0:
        raise ValueError(
            "a round of server A or B has a figure of 0 or less; the ratio of B to A needs values above 0"
        )
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
    """Return true if B is good enough compared with A.

    `threshold` is the lowest acceptable ratio B / A if a higher figure is better. If a lower figure is
    better, 1 / `threshold` is the highest acceptable ratio. With the gate `no-worse`, the whole interval must
    be acceptable. With `worse`, a part of the interval is enough, so B fails only if it is clearly worse.
    """
    # As for a figure that should be high.
    low, high = (found.low, found.high) if better == "higher" else (1 / found.high, 1 / found.low)
    return (low if gate == "no-worse" else high) >= threshold
