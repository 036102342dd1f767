"""How far the logits of a device may lie from the CPU's, on the same graph: what the self-test lets pass."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.runners.device.selftest import threshold_of


def threshold(dtype: Dtype, quantize: Quantize, expected: NDArray[np.float32]) -> float:
    """Largest difference of a logit from what is `expected` of the CPU.

    Sums in float32 are held to their own threshold over quantised weights too.
    """
    return threshold_of(dtype, "none" if dtype == "fp32" else quantize, expected)
