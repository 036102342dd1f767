"""Statistics of a set of values: mean, percentiles, and Jain's fairness index."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class MsSpread:
    """Mean and percentiles of a set of times, in milliseconds."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float


def spread_ms(seconds: Iterable[float]) -> MsSpread | None:
    """Return mean and percentiles, in milliseconds, of times given in seconds. None if there are no times.
    Percentiles are interpolated linearly.
    """
    values = np.array(list(seconds)) * 1e3
    if not len(values):
        return None
    p50, p90, p95, p99 = (round(float(value), 3) for value in np.percentile(values, (50, 90, 95, 99)))
    return MsSpread(len(values), round(float(values.mean()), 3), p50, p90, p95, p99)


def jain(values: Sequence[float]) -> float | None:
    """Return Jain's fairness index: 1 if all `values` are equal, 1/n if only one of n values is above 0. None
    if there are no values or all are 0.

    The index is (Σx)² / (n Σx²), from Jain, Chiu and Hawe, "A quantitative measure of fairness", DEC-TR-301,
    1984.
    """
    squares = sum(value * value for value in values)
    return sum(values) ** 2 / (len(values) * squares) if squares else None
