"""How far the logits of a device may lie from the CPU's, on the same graph."""

from __future__ import annotations

from server.engines.embedded.graph import Dtype
from server.engines.embedded.quantize import Quantize

FP32, FP16, INT4 = 1e-3, 0.05, 0.15


def threshold(dtype: Dtype, quantize: Quantize) -> float:
    """Largest difference of a logit."""
    if quantize == "int4":
        return INT4
    return FP16 if dtype == "fp16" else FP32
