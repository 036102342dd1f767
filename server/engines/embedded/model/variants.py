"""The two variants of a graph, and how each quantises and packs its weights.

`FUSED` is for the CPU. It uses ONNX Runtime's fused operators, such as com.microsoft.GroupQueryAttention,
which write keys and values in place. `PORTABLE` is for device providers. It uses ai.onnx operators only, with
static shapes and matrix products of at most rank 4. Quantised weights use `MatMulNBits` in both variants.
`FUSED` can use integer products (`integer`) instead.
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
"""Hidden size from which wide blocks are accurate enough: errors cancel when many inputs are summed."""


class Variant(Protocol):
    """A way to write a graph for one kind of device."""

    @property
    def name(self) -> VariantName:
        """Name of the variant in folders and reports."""
        ...

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` if this variant does not support the combination."""
        ...

    def choose_method(self, quantize: Quantize) -> Quantize:
        """Choose how this machine holds the weights for the setting `quantize`."""
        ...

    def block_size(self, hidden: int, bits: int) -> int:
        """Return the number of weights that share a scale in a base of this hidden size."""
        ...

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Return the tensors and attributes that `MatMulNBits` takes in addition to weights and scales."""
        ...

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Create this variant's operators for one graph."""
        ...


class Fused:
    """The variant for the CPU, in float32."""

    name: VariantName = "fused"

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` if this variant does not support the combination. See `Variant.check`."""
        if dtype != "fp32":
            raise ValueError(f"dtype {dtype} needs the portable variant; the fused variant has fp32 only")

    def choose_method(self, quantize: Quantize) -> Quantize:
        """Replace int8 by `w8a8` (integer products) if this CPU computes those exactly."""
        return "w8a8" if quantize == "int8" and exact_products() else quantize

    def block_size(self, hidden: int, bits: int) -> int:
        """Return the number of weights that share a scale in a base of this hidden size. See
        `Variant.block_size`.
        """
        return WIDE_BLOCK if bits == 4 and hidden >= BIG_HIDDEN else BLOCK

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Let `MatMulNBits` round activations to 8 bits. No tensors are added."""
        return [], {"accuracy_level": 4}

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Create this variant's operators for one graph. See `Variant.operators`."""
        return FusedOperators(graph, config)


class Portable:
    """The variant for devices other than the CPU. Any runtime that supports standard ONNX operators can run
    it.
    """

    name: VariantName = "portable"

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` if this variant does not support the combination. See `Variant.check`."""
        if quantize == "w8a8":
            raise ValueError(
                "quantize w8a8 needs the fused variant; the portable variant has none, int8 and int4"
            )

    def choose_method(self, quantize: Quantize) -> Quantize:
        """Return `quantize` unchanged, since devices support it as it is."""
        return quantize

    def block_size(self, hidden: int, bits: int) -> int:
        """Return the number of weights that share a scale in a base of this hidden size. See
        `Variant.block_size`.
        """
        return BLOCK

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Add explicit zero points, which DirectML requires."""
        shape = zero_points_shape(out, features, bits, block)
        return [TensorSpec(f"{name}.zero_points", np.dtype(np.uint8), shape)], {}

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Create this variant's operators for one graph. See `Variant.operators`."""
        return PortableOperators(graph, config, dtype)


FUSED, PORTABLE = Fused(), Portable()
VARIANTS: dict[VariantName, Variant] = {variant.name: variant for variant in (FUSED, PORTABLE)}
