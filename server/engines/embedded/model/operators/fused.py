"""Writes the operators of the fused graph variant, for the CPU: ONNX Runtime's own fused operators."""

from __future__ import annotations

from server.engines.embedded.model.config import Activation, ModelConfig
from server.engines.embedded.model.operators.attention import Attention, FusedAttention
from server.engines.embedded.model.operators.protocol import SIGMOIDS
from server.engines.embedded.model.plan import MICROSOFT, ONNX_TYPES, GraphPlan


class FusedOperators:
    """Adds the operators of the fused graph variant (CPU) to a graph.

    Activations have shape [batch x tokens, features].
    """

    def __init__(self, graph: GraphPlan, config: ModelConfig) -> None:
        self._graph, self._config = graph, config

    def mask_rows(self) -> list[str | int]:
        """Return the leading dimensions of the graph input `lora_mask`, before its LoRA rank columns: one
        dimension, N = batch x tokens. See `Operators.mask_rows`.
        """
        return ["N"]

    def attention(self) -> Attention:
        """Declare the graph inputs that attention needs, such as `seqlens_k`. See `Operators.attention`."""
        return FusedAttention(self._graph, self._config, self._norm_heads)

    def token_ids(self, ids: str) -> str:
        """Reshape the batch's token ids [batch, tokens] to [batch x tokens]. See `Operators.token_ids`."""
        return self._graph.reshape(ids, -1)

    def positions(self) -> str:
        """Compute every token's position [batch x tokens].

        The last token of each batch slot has position `seqlens_k`.
        """
        graph = self._graph
        length = graph.op("Gather", [graph.op("Shape", ["input_ids"]), graph.integer(1)], axis=0)
        steps = graph.op("Range", [graph.integer(0), length, graph.integer(1)])
        last = graph.op(
            "Unsqueeze", [graph.op("Cast", ["seqlens_k"], to=ONNX_TYPES["int64"]), graph.integers(1)]
        )
        before = graph.op("Sub", [steps, graph.op("Sub", [length, graph.integer(1)])])
        return graph.reshape(graph.op("Add", [last, before]), -1)

    def flatten(self, x: str, width: int) -> str:
        """Return `x` unchanged: activations of the fused variant have shape [batch x tokens, width] already.

        See `Operators.flatten`.
        """
        return x

    def unflatten(self, y: str) -> str:
        """Return `y` unchanged: activations of the fused variant have shape [batch x tokens, width] already.

        See `Operators.unflatten`.
        """
        return y

    def rms_norm(self, name: str, weight: str, residual: str, update: str) -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update). See `Operators.rms_norm`."""
        graph, epsilon = self._graph, self._config.norm_epsilon
        if not update:
            inputs = [residual, weight]
            normed = graph.op("SimplifiedLayerNormalization", inputs, axis=-1, epsilon=epsilon)
            return normed, residual
        outputs = [f"{name}.normed", "", "", f"{name}.sum"]
        inputs = [residual, update, weight]
        graph.op("SkipSimplifiedLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def layer_norm(self, name: str, weight: str, bias: str, residual: str, update: str) -> tuple[str, str]:
        """Normalise residual + update with a LayerNorm. Return the norm and the sum.

        See `Operators.layer_norm`.
        """
        graph, epsilon = self._graph, self._config.norm_epsilon
        if not update:
            inputs = [residual, weight, bias]
            return graph.op("LayerNormalization", inputs, axis=-1, epsilon=epsilon), residual
        outputs = [f"{name}.normed", "", "", f"{name}.sum"]
        inputs = [residual, update, weight, bias]
        graph.op("SkipLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def activate(self, kind: Activation, x: str) -> str:
        """Apply the activation function `kind` to `x`. See `Operators.activate`."""
        if kind == "relu":
            return self._graph.op("Relu", [x])
        if kind in SIGMOIDS:
            return self._graph.op("QuickGelu", [x], domain=MICROSOFT, alpha=SIGMOIDS[kind])
        return self._graph.op("FastGelu" if kind == "gelu_tanh" else "Gelu", [x], domain=MICROSOFT)

    def _norm_heads(self, x: str, weight: str) -> str:
        return self.rms_norm("", weight, x, "")[0]

    def add_product(self, y: str, a: str, b: str) -> str:
        """Return y + a @ b, where `@` is the matrix product (used to add LoRA updates).

        See `Operators.add_product`.
        """
        return self._graph.op("Gemm", [a, b, y])
