"""The two variants of a graph, and how each holds its weights.

`FUSED`, for the CPU, is made of ONNX Runtime's fused operators (com.microsoft.GroupQueryAttention among
them), past and present in one memory. `PORTABLE`, for device providers, is made of ai.onnx operators alone,
with static shapes and matrix products of rank 4 at most. Quantised, both use `MatMulNBits`, or the fused one
integer products (`integer`).
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.integer import exact_products
from server.engines.embedded.model.operators.fused import FusedOperators
from server.engines.embedded.model.operators.portable import PortableOperators
from server.engines.embedded.model.operators.protocol import Operators
from server.engines.embedded.model.plan import Attribute, Dtype, GraphPlan, TensorSpec
from server.engines.embedded.model.quantize import BLOCK, WIDE_BLOCK, Quantize, zero_points_shape

VariantName = Literal["fused", "portable"]
BIG_HIDDEN = 2048
"""From this width on a base bears wide blocks: the more inputs a product sums, the more its errors cancel."""


class Variant(Protocol):
    """How a graph is written, and for whom."""

    @property
    def name(self) -> VariantName:
        """What folders and reports call it."""
        ...

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` for a combination that is not built."""
        ...

    def choose_method(self, quantize: Quantize) -> Quantize:
        """How weights are held on this machine if `quantize` is asked for."""
        ...

    def block_size(self, hidden: int, bits: int) -> int:
        """Weights that share a scale in a base of this width."""
        ...

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """What `MatMulNBits` takes beside weights and scales: further tensors, further attributes."""
        ...

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Its operators for one graph."""
        ...


class Fused:
    """For the CPU, in float32."""

    name: VariantName = "fused"

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """See `Variant.check`."""
        if dtype != "fp32":
            raise ValueError(f"dtype {dtype} is for the portable variant; fused is built in fp32")

    def choose_method(self, quantize: Quantize) -> Quantize:
        """int8 becomes integer products if this CPU's are exact."""
        return "w8a8" if quantize == "int8" and exact_products() else quantize

    def block_size(self, hidden: int, bits: int) -> int:
        """See `Variant.block_size`."""
        return WIDE_BLOCK if bits == 4 and hidden >= BIG_HIDDEN else BLOCK

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Activations are rounded to 8 bits for the product."""
        return [], {"accuracy_level": 4}

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """See `Variant.operators`."""
        return FusedOperators(graph, config)


class Portable:
    """For device providers, and for whatever runs plain ONNX."""

    name: VariantName = "portable"

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """See `Variant.check`."""
        if quantize == "w8a8":
            raise ValueError(
                "quantize w8a8 is for the fused variant; portable is built with none, int8 or int4"
            )

    def choose_method(self, quantize: Quantize) -> Quantize:
        """As it is asked for."""
        return quantize

    def block_size(self, hidden: int, bits: int) -> int:
        """See `Variant.block_size`."""
        return BLOCK

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Zero points, which DirectML asks for."""
        shape = zero_points_shape(out, features, bits, block)
        return [TensorSpec(f"{name}.zero_points", np.dtype(np.uint8), shape)], {}

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """See `Variant.operators`."""
        return PortableOperators(graph, config, dtype)


FUSED, PORTABLE = Fused(), Portable()
VARIANTS: dict[VariantName, Variant] = {variant.name: variant for variant in (FUSED, PORTABLE)}
