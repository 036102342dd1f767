"""The two variants of a graph, and what each of them writes in its own way.

`FUSED`, for the CPU, is made of ONNX Runtime's fused operators (com.microsoft.GroupQueryAttention among
them), past and present in one memory. `PORTABLE`, for device providers, is made of ai.onnx operators alone,
with static shapes and matrix products of rank 4 at most. Quantised, both use `MatMulNBits`, or the fused one
integer products (`integer`).
"""

from __future__ import annotations

from typing import Literal, Protocol

import numpy as np

from server.engines.embedded.model.attention import Attention, FusedAttention, PortableAttention
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.integer import exact_products
from server.engines.embedded.model.plan import (
    MICROSOFT,
    NUMPY,
    ONNX_TYPES,
    Attribute,
    Dtype,
    GraphPlan,
    TensorSpec,
)
from server.engines.embedded.model.quantize import BLOCK, WIDE_BLOCK, Quantize, zero_points_shape

VariantName = Literal["fused", "portable"]
BIG_HIDDEN = 2048
"""From this width on a base bears wide blocks: the more inputs a product sums, the more its errors cancel."""


class Operators(Protocol):
    """Writes one variant's own operators into one graph."""

    def mask_rows(self) -> list[str | int]:
        """Dimensions of an adapter mask before its rank columns."""
        ...

    def attention(self) -> Attention:
        """Declare what attention takes from the host; it comes before any layer."""
        ...

    def token_ids(self, ids: str) -> str:
        """The batch's token ids [B, S] in the variant's shape."""
        ...

    def positions(self) -> str:
        """Every token's position, in the shape of `token_ids`."""
        ...

    def flatten(self, x: str, width: int) -> str:
        """The variant's activations as [B x S, width]."""
        ...

    def unflatten(self, y: str) -> str:
        """The way back from `flatten`."""
        ...

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """(RMS norm of residual + update, residual + update); no update where it is empty."""
        ...

    def silu(self, x: str) -> str:
        """`x` times its sigmoid."""
        ...

    def add_product(self, y: str, a: str, b: str) -> str:
        """y + a b."""
        ...


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
        return _FusedOperators(graph, config)


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
        return _PortableOperators(graph, config, dtype)


FUSED, PORTABLE = Fused(), Portable()
VARIANTS: dict[VariantName, Variant] = {variant.name: variant for variant in (FUSED, PORTABLE)}


class _FusedOperators:
    """Activations are [B x S, features]."""

    def __init__(self, graph: GraphPlan, config: ModelConfig) -> None:
        self._graph, self._config = graph, config

    def mask_rows(self) -> list[str | int]:
        return ["N"]

    def attention(self) -> Attention:
        return FusedAttention(self._graph, self._config)

    def token_ids(self, ids: str) -> str:
        return self._graph.reshape(ids, -1)

    def positions(self) -> str:
        """[B x S]: those of a row end at its `seqlens_k`."""
        graph = self._graph
        length = graph.op("Gather", [graph.op("Shape", ["input_ids"]), graph.integer(1)], axis=0)
        steps = graph.op("Range", [graph.integer(0), length, graph.integer(1)])
        last = graph.op(
            "Unsqueeze", [graph.op("Cast", ["seqlens_k"], to=ONNX_TYPES["int64"]), graph.integers(1)]
        )
        before = graph.op("Sub", [steps, graph.op("Sub", [length, graph.integer(1)])])
        return graph.reshape(graph.op("Add", [last, before]), -1)

    def flatten(self, x: str, width: int) -> str:
        return x

    def unflatten(self, y: str) -> str:
        return y

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        graph, epsilon = self._graph, self._config.norm_epsilon
        if not update:
            inputs = [residual, weight]
            normed = graph.op("SimplifiedLayerNormalization", inputs, axis=-1, epsilon=epsilon)
            return normed, residual
        outputs = [f"{name}.normed", "", "", f"{name}.sum"]
        inputs = [residual, update, weight]
        graph.op("SkipSimplifiedLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def silu(self, x: str) -> str:
        return self._graph.op("QuickGelu", [x], domain=MICROSOFT, alpha=1.0)

    def add_product(self, y: str, a: str, b: str) -> str:
        return self._graph.op("Gemm", [a, b, y])


class _PortableOperators:
    """Activations are [B, S, features]."""

    def __init__(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> None:
        self._graph, self._config = graph, config
        self._dtype: Dtype = dtype

    def mask_rows(self) -> list[str | int]:
        return ["B", 1]

    def attention(self) -> Attention:
        return PortableAttention(self._graph, self._config, NUMPY[self._dtype])

    def token_ids(self, ids: str) -> str:
        return ids

    def positions(self) -> str:
        return "positions"

    def flatten(self, x: str, width: int) -> str:
        return self._graph.reshape(x, -1, width)

    def unflatten(self, y: str) -> str:
        """[B x S, features] as [B, S, features].

        DirectML gives a product of rank 3 a weight for each row of the batch, and where it is quantised that
        many unpacked copies of it; so each product is of rank 2, over all positions. No constant shape leads
        back from there, whatever B and S.
        """
        return self._graph.op("Gather", [y, "order"], axis=0)

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """Of ai.onnx operators, its mean in float32."""
        graph, half = self._graph, self._dtype == "fp16"
        x = graph.op("Add", [residual, update]) if update else residual
        wide = graph.op("Cast", [x], to=ONNX_TYPES["float32"]) if half else x
        square = graph.op("Mul", [wide, wide])
        mean = graph.op("ReduceMean", [square], axes=[-1], keepdims=1)
        epsilon = graph.constant(np.array(self._config.norm_epsilon, np.float32))
        normed = graph.op("Div", [wide, graph.op("Sqrt", [graph.op("Add", [mean, epsilon])])])
        narrow = graph.op("Cast", [normed], to=ONNX_TYPES["float16"]) if half else normed
        return graph.op("Mul", [narrow, weight]), x

    def silu(self, x: str) -> str:
        return self._graph.op("Mul", [x, self._graph.op("Sigmoid", [x])])

    def add_product(self, y: str, a: str, b: str) -> str:
        return self._graph.op("Add", [y, self._graph.op("MatMul", [a, b])])
