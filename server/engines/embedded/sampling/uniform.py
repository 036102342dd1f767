"""Random numbers that depend only on a seed and a token's index, so that sampling does not depend on other
requests in the batch.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def uniforms(seeds: NDArray[np.uint64], indices: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Return the random number with index `indices[i]` for seed `seeds[i]`: 53 bits in [0, 1), shape [n].

    Uses SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014). Its
    state is a counter, so the stream of a seed can start at any index. Each seed is mixed first, which makes
    the streams of similar seeds independent.
    """
    state = _mix(seeds + _GAMMA) + _GAMMA * (indices + np.uint64(1))
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Apply SplitMix64's mixing function to each number.

    The uint64 arithmetic overflows on purpose, without a warning.
    """
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
