"""Random numbers that depend on a seed and a token's index alone, so a batch's make-up cannot change them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_GAMMA = np.uint64(0x9E3779B97F4A7C15)
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


def uniforms(seeds: NDArray[np.uint64], indices: NDArray[np.uint64]) -> NDArray[np.float64]:
    """Numbers in [0, 1) of 53 bits: draw `indices[i]` of the stream that `seeds[i]` starts; shape [n].

    SplitMix64 (Steele, Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014), entered at
    any index because its state is a counter. The seed is mixed first, so that neighbouring seeds start
    streams that are far apart.
    """
    state = _mix(seeds + _GAMMA) + _GAMMA * (indices + np.uint64(1))
    return (_mix(state) >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """SplitMix64's finaliser; uint64 arrays wrap around without a warning."""
    values = (values ^ (values >> np.uint64(30))) * _FIRST
    values = (values ^ (values >> np.uint64(27))) * _SECOND
    return values ^ (values >> np.uint64(31))
