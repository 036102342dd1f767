"""The two graph variants (`FUSED` and `PORTABLE`), and how each quantises and packs its weights.

`FUSED` is for the CPU. It uses ONNX Runtime's fused operators, such as com.microsoft.GroupQueryAttention,
which write keys and values in place. `PORTABLE` is for GPUs and NPUs. It uses standard ONNX operators only,
with static shapes and matrix products of at most rank 4. Quantised weights use `MatMulNBits` in both
variants. `FUSED` can use integer products (`integer`) instead.
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
"""Minimum hidden size at which blocks of 128 4-bit weights are accurate enough, since rounding errors cancel
when many inputs are summed.
"""


class Variant(Protocol):
    """A variant of the decoder's ONNX graph, for one kind of device: fused for the CPU, portable for other
    devices.
    """

    @property
    def name(self) -> VariantName:
        """Name of the graph variant in folder names and reports."""
        ...

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` if this graph variant does not support the number format or the quantisation."""
        ...

    def choose_method(self, quantize: Quantize) -> Quantize:
        """Choose the number format of the weights on this machine for the setting `quantize`."""
        ...

    def block_size(self, hidden: int, bits: int) -> int:
        """Return the number of weights that share a quantisation scale, for a base model of this hidden
        size.
        """
        ...

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Return the tensors that `MatMulNBits` takes in addition to weights and scales, and its additional
        attributes.
        """
        ...

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Create the object that adds this variant's operators to `graph`."""
        ...


class Fused:
    """The graph variant for the CPU, which computes in float32 with ONNX Runtime's fused operators."""

    name: VariantName = "fused"

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` if the fused variant does not support the number format or quantisation.

        See `Variant.check`.
        """
        if dtype != "fp32":
            raise ValueError(
                f"dtype {dtype} needs an ONNX graph built as 'portable', for GPUs and NPUs; a graph built as "
                "'fused', for the CPU, computes in fp32 only"
            )

    def choose_method(self, quantize: Quantize) -> Quantize:
        """Return `w8a8` (8-bit weights and activations) for int8 if this CPU computes integer products
        exactly; otherwise `quantize`.
        """
        return "w8a8" if quantize == "int8" and exact_products() else quantize

    def block_size(self, hidden: int, bits: int) -> int:
        """Return the number of weights that share a quantisation scale: 128 for 4 bits in large base models,
        else 32. See `Variant.block_size`.
        """
        return WIDE_BLOCK if bits == 4 and hidden >= BIG_HIDDEN else BLOCK

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Let `MatMulNBits` round activations to 8 bits (`accuracy_level` 4).

        The fused variant adds no tensors.
        """
        return [], {"accuracy_level": 4}

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Create the object that adds the fused variant's operators to `graph`. See `Variant.operators`."""
        return FusedOperators(graph, config)


class Portable:
    """The graph variant for devices other than the CPU.

    Any runtime that supports standard ONNX operators can run it.
    """

    name: VariantName = "portable"

    def check(self, dtype: Dtype, quantize: Quantize) -> None:
        """Raise `ValueError` if the portable variant does not support the quantisation.

        See `Variant.check`.
        """
        if quantize == "w8a8":
            raise ValueError(
                "quantize w8a8 needs an ONNX graph built as 'fused', for the CPU; a graph built as "
                "'portable' supports only the values none, int8 and int4"
            )

    def choose_method(self, quantize: Quantize) -> Quantize:
        """Return `quantize` unchanged: GPUs and NPUs support int8 and int4 weights as they are."""
        return quantize

    def block_size(self, hidden: int, bits: int) -> int:
        """Return the number of weights that share a quantisation scale, always 32.

        See `Variant.block_size`.
        """
        return BLOCK

    def describe_packing(
        self, name: str, out: int, features: int, bits: int, block: int
    ) -> tuple[list[TensorSpec], dict[str, Attribute]]:
        """Add a tensor of explicit zero points, which DirectML requires."""
        shape = zero_points_shape(out, features, bits, block)
        return [TensorSpec(f"{name}.zero_points", np.dtype(np.uint8), shape)], {}

    def operators(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> Operators:
        """Create the object that adds the portable variant's operators to `graph`.

        See `Variant.operators`.
        """
        return PortableOperators(graph, config, dtype)


FUSED, PORTABLE = Fused(), Portable()
VARIANTS: dict[VariantName, Variant] = {variant.name: variant for variant in (FUSED, PORTABLE)}
