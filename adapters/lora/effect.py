"""Check that an adapter's updates are neither too small to have an effect nor so large that they overflow."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open

USUAL_WEIGHT = 0.02
"""Assumed root mean square of a base's weights if they cannot be read. Most bases are initialised with it."""
SMALLEST = 2.0**-24
"""Smallest useful update, relative to the base's weights. Float32 rounds a smaller update away (half a unit
in the last place).
"""
LARGEST = 1e4
"""Largest allowed update, relative to the base's weights. The updates of trained adapters stay below 10."""
LARGEST_NUMBER = 65504.0
"""The largest number in float16, in which some engines compute."""
_SAMPLED = 4096
"""Number of values that `typical_weight` samples from each weight matrix of a base."""
_MOST = 16
"""Maximum number of a base's weight matrices that `typical_weight` samples."""


def update_ratio(a: NDArray[np.float32], b: NDArray[np.float32], scaling: float, weight: float) -> float:
    """Return an upper bound of an update's size, relative to the size of the base's weights, by Frobenius
    norms.

    `a` is [rank, in], `b` is [out, rank]. `weight` is the root mean square of the base's weights.
    """
    # Squares of small numbers vanish in float32.
    rows = np.linalg.norm(a.astype(np.float64), axis=1)
    columns = np.linalg.norm(b.astype(np.float64), axis=0)
    return float(abs(scaling) * (rows @ columns) / (weight * math.sqrt(a.shape[1] * b.shape[0])))


def typical_weight(base: Path, modules: tuple[str, ...]) -> float:
    """Return the smallest root mean square among samples of the base's weight matrices.

    Returns `USUAL_WEIGHT` if none can be read. `modules` are the modules to sample, such as
    `self_attn.q_proj`.
    """
    found: list[float] = []
    for file in sorted(base.glob("*.safetensors"))[:1]:
        try:
            found += _samples(file, modules)
        except (OSError, SafetensorError, TypeError, ValueError):
            return USUAL_WEIGHT
    return min(found, default=USUAL_WEIGHT)


def _samples(file: Path, modules: tuple[str, ...]) -> list[float]:
    ends = tuple(f"{module}.weight" for module in modules)
    found: list[float] = []
    with safe_open(file, framework="np") as opened:
        opened: Any
        named = [name for name in sorted(opened.keys()) if name.endswith(ends)]
        for name in named[:_MOST]:
            part = opened.get_slice(name)
            width = max(1, int(part.get_shape()[-1]))
            sample = np.asarray(part[: max(1, _SAMPLED // width)]).astype(np.float64)
            size = float(np.sqrt(np.mean(sample**2)))
            if math.isfinite(size) and size > 0:
                found.append(size)
    return found
