"""Writes the operators of the portable graph variant, for devices other than the CPU: standard ONNX operators
only.

Shapes are static, and means are computed in float32.
"""

from __future__ import annotations

import math

import numpy as np

from server.engines.embedded.model.config import Activation, ModelConfig
from server.engines.embedded.model.operators.attention import Attention, PortableAttention
from server.engines.embedded.model.operators.protocol import SIGMOIDS
from server.engines.embedded.model.plan import NUMPY, ONNX_TYPES, Dtype, GraphPlan


class PortableOperators:
    """Adds the operators of the portable graph variant (standard ONNX operators only) to a graph.

    Activations have shape [batch, tokens, features].
    """

    def __init__(self, graph: GraphPlan, config: ModelConfig, dtype: Dtype) -> None:
        self._graph, self._config = graph, config
        self._dtype: Dtype = dtype

    def mask_rows(self) -> list[str | int]:
        """Return the leading dimensions of the graph input `lora_mask`, before its LoRA rank columns: [batch,
        1]. See `Operators.mask_rows`.
        """
        return ["B", 1]

    def attention(self) -> Attention:
        """Declare the graph inputs that attention needs, such as `mask`. See `Operators.attention`."""
        return PortableAttention(self._graph, self._config, NUMPY[self._dtype], self._norm_heads)

    def token_ids(self, ids: str) -> str:
        """Return the batch's token ids [batch, tokens] unchanged, as the portable variant needs them.

        See `Operators.token_ids`.
        """
        return ids

    def positions(self) -> str:
        """Return the graph input with every token's position, [batch, tokens]. See `Operators.positions`."""
        return "positions"

    def flatten(self, x: str, width: int) -> str:
        """Reshape activations `x` [batch, tokens, width] to [batch x tokens, width].

        See `Operators.flatten`.
        """
        return self._graph.reshape(x, -1, width)

    def unflatten(self, y: str) -> str:
        """Reshape activations `y` from [batch x tokens, features] to [batch, tokens, features].

        Matrix products are computed on rank 2, over all positions. For rank 3, DirectML would copy the weight
        once per batch slot, unpacked if it is quantised. Both sizes vary, so the target shape cannot be a
        constant.
        """
        return self._graph.op("Gather", [y, "order"], axis=0)

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update). See `Operators.rms_norm`. The mean is
        computed in float32.
        """
        graph, half = self._graph, self._dtype == "fp16"
        x = graph.op("Add", [residual, update]) if update else residual
        wide = graph.op("Cast", [x], to=ONNX_TYPES["float32"]) if half else x
        return graph.op("Mul", [self._to_unit_square(wide), weight]), x

    def layer_norm(self, name: str, weight: str, bias: str, residual: str, update: str) -> tuple[str, str]:
        """Normalise residual + update with a LayerNorm. Return the norm and the sum.

        See `Operators.layer_norm`. Mean and variance are computed in float32.
        """
        graph, half = self._graph, self._dtype == "fp16"
        x = graph.op("Add", [residual, update]) if update else residual
        wide = graph.op("Cast", [x], to=ONNX_TYPES["float32"]) if half else x
        centred = graph.op("Sub", [wide, graph.op("ReduceMean", [wide], axes=[-1], keepdims=1)])
        scaled = graph.op("Mul", [self._to_unit_square(centred), weight])
        return graph.op("Add", [scaled, bias]), x

    def activate(self, kind: Activation, x: str) -> str:
        """Apply the activation function `kind` to `x`. See `Operators.activate`."""
        graph = self._graph
        if kind == "relu":
            return graph.op("Relu", [x])
        if kind in SIGMOIDS:
            slope = SIGMOIDS[kind]
            steep = x if slope == 1.0 else graph.op("Mul", [x, self._number(slope)])
            return graph.op("Mul", [x, graph.op("Sigmoid", [steep])])
        if kind == "gelu":
            part = graph.op("Erf", [graph.op("Mul", [x, self._number(math.sqrt(0.5))])])
        else:
            # x + 0.044715 x^3, written so that in float16 only products with x itself can overflow.
            square = graph.op("Mul", [graph.op("Mul", [x, x]), self._number(0.044715)])
            cubic = graph.op("Mul", [x, graph.op("Add", [square, self._number(1.0)])])
            part = graph.op("Tanh", [graph.op("Mul", [cubic, self._number(math.sqrt(2 / math.pi))])])
        half = graph.op("Mul", [x, self._number(0.5)])
        return graph.op("Mul", [half, graph.op("Add", [part, self._number(1.0)])])

    def _number(self, value: float) -> str:
        return self._graph.constant(np.array(value, NUMPY[self._dtype]))

    def _to_unit_square(self, wide: str) -> str:
        """Divide a float32 tensor by its root mean square. The result has the graph's float type."""
        graph = self._graph
        square = graph.op("Mul", [wide, wide])
        mean = graph.op("ReduceMean", [square], axes=[-1], keepdims=1)
        epsilon = graph.constant(np.array(self._config.norm_epsilon, np.float32))
        normed = graph.op("Div", [wide, graph.op("Sqrt", [graph.op("Add", [mean, epsilon])])])
        return graph.op("Cast", [normed], to=ONNX_TYPES["float16"]) if self._dtype == "fp16" else normed

    def _norm_heads(self, x: str, weight: str) -> str:
        return self.rms_norm("", weight, x, "")[0]

    def add_product(self, y: str, a: str, b: str) -> str:
        """Return y + a @ b, where `@` is the matrix product (used to add LoRA updates).

        See `Operators.add_product`.
        """
        return self._graph.op("Add", [y, self._graph.op("MatMul", [a, b])])
