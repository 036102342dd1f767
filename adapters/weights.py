"""An adapter's weights as numpy arrays, checked before anything uses them. No torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

TARGET_MODULES = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")


@dataclass(frozen=True, slots=True)
class LowRank:
    """One module's update: `y += scaling * (x @ a.T) @ b.T`."""

    a: NDArray[np.float32]
    """Shape [rank, in features]."""
    b: NDArray[np.float32]
    """Shape [out features, rank]."""
    scaling: float
    """alpha / rank, or alpha / sqrt(rank) with rsLoRA."""

    @property
    def rank(self) -> int:
        """Width of the bottleneck."""
        return self.a.shape[0]


@dataclass(frozen=True, slots=True)
class AdapterWeights:
    """Every update of one adapter, by layer and target module."""

    modules: Mapping[tuple[int, str], LowRank]
    """(layer, one of `TARGET_MODULES`) → update."""
