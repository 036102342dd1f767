"""Attention in the two graph variants: ONNX Runtime's fused operator for the CPU, standard ONNX operators for
other devices.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import numpy as np

from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.plan import MICROSOFT, Attribute, GraphPlan

NormHeads = Callable[[str, str], str]
"""Function that adds an RMS norm along the last axis to the graph: (tensor name, weight name) -> result
name.
"""


class Attention(Protocol):
    """Adds attention to the graph: normalises and rotates heads, stores new keys and values, and computes the
    result.
    """

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """Compute attention from `qkv`, which holds queries, keys and values side by side.

        `norms` names the RMS norm weights [head size] for queries and keys. If it is empty, they are not
        normalised. The shape of the result depends on the graph variant.
        """
        ...


def declare_memory(graph: GraphPlan, config: ModelConfig, layer: int, dtype: str) -> None:
    """Declare a layer's KV cache as graph inputs (`past_…`, before the run) and graph outputs (`present_…`,
    after the run).
    """
    shape = ["B", config.kv_heads, "T", config.head_dim]
    for part in "kv":
        graph.input(f"past_{part}.{layer}", dtype, shape)
        graph.output(f"present_{part}.{layer}", dtype, shape)


class FusedAttention:
    """Attention with ONNX Runtime's fused operator com.microsoft.GroupQueryAttention, for the CPU.

    Input: queries, keys and values [batch x tokens, all heads].
    """

    def __init__(self, graph: GraphPlan, config: ModelConfig, norm: NormHeads) -> None:
        self._graph, self._config, self._norm = graph, config, norm
        graph.input("seqlens_k", "int32", ["B"])
        graph.input("total_length", "int32", [])
        tables = config.rope.tables(config.head_dim, config.context) if config.rope else ()
        self._rotary = [
            graph.table(name, table)
            for name, table in zip(("rotary_cos", "rotary_sin"), tables, strict=False)
        ]
        self._rows = graph.op("Shape", ["input_ids"])
        self._shapes: dict[int, str] = {}

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """Compute attention from `qkv` [batch x tokens, features], which holds queries, keys and values side
        by side. Returns [batch x tokens, query width]. See `Attention.attend`.
        """
        config = self._config
        declare_memory(self._graph, config, layer, "float32")
        given = self._normed(qkv, norms) if norms else [self._in_rows(qkv, self._width), "", ""]
        past = [f"past_k.{layer}", f"past_v.{layer}"]
        inputs = [*given, *past, "seqlens_k", "total_length", *self._rotary]
        outputs = [f"attended.{layer}", f"present_k.{layer}", f"present_v.{layer}"]
        attributes: dict[str, Attribute] = {"num_heads": config.heads, "kv_num_heads": config.kv_heads}
        attributes |= {
            "scale": config.score_scale(layer),
            "do_rotary": int(bool(self._rotary)),
            "rotary_interleaved": 0,
        }
        if config.sliding_window is not None:
            attributes["local_window_size"] = config.sliding_window
        attended = self._graph.op("GroupQueryAttention", inputs, outputs, domain=MICROSOFT, **attributes)
        return self._graph.reshape(attended, -1, config.query_width)

    @property
    def _width(self) -> int:
        return self._config.query_width + 2 * self._config.kv_width

    def _normed(self, qkv: str, norms: Sequence[str]) -> list[str]:
        """Split `qkv` into queries, keys and values, and RMS-normalise each head of the queries and keys."""
        graph, config = self._graph, self._config
        widths = [config.query_width, config.kv_width, config.kv_width]
        parts = graph.split(qkv, widths)
        for i, weight in enumerate(norms):
            parts[i] = self._norm(graph.reshape(parts[i], -1, config.head_dim), weight)
        return [self._in_rows(part, width) for part, width in zip(parts, widths, strict=True)]

    def _in_rows(self, x: str, width: int) -> str:
        """Reshape `x` to [batch, tokens, width]."""
        if width not in self._shapes:
            self._shapes[width] = self._graph.op("Concat", [self._rows, self._graph.integers(width)], axis=0)
        return self._graph.op("Reshape", [x, self._shapes[width]])


class PortableAttention:
    """Attention with the standard operators ScatterND, MatMul and Softmax.

    Input: queries, keys and values [batch, tokens, all heads]. The host computes the mask.
    """

    def __init__(self, graph: GraphPlan, config: ModelConfig, dtype: str, norm: NormHeads) -> None:
        self._graph, self._config, self._dtype, self._norm = graph, config, dtype, norm
        positions = graph.input("positions", "int64", ["B", "S"])
        graph.input("order", "int64", ["B", "S"])
        graph.input("mask", dtype, ["B", 1, "GS", "T"])
        graph.input("scatter", "int64", ["B", config.kv_heads, "S", 3])
        self._rotary: list[str] = []
        if config.rope is None:
            return
        cos, sin = config.rope.tables(config.head_dim, config.context)
        for name, halves in (("rotary_cos", (cos, cos)), ("rotary_sin", (-sin, sin))):
            table = graph.table(name, np.concatenate(halves, axis=1).astype(dtype))
            chosen = graph.op("Gather", [table, positions], axis=0)
            self._rotary.append(graph.op("Unsqueeze", [chosen, graph.integers(2)]))

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """Compute attention from `qkv` [batch, tokens, features], which holds queries, keys and values side
        by side. Returns [batch, tokens, query width]. See `Attention.attend`.

        Query heads that share a KV head are computed as rows of one matrix product.
        """
        graph, config, dim = self._graph, self._config, self._config.head_dim
        declare_memory(graph, config, layer, self._dtype)
        q, k, v = graph.split(qkv, [config.query_width, config.kv_width, config.kv_width])
        q, k = graph.reshape(q, 0, 0, config.heads, dim), graph.reshape(k, 0, 0, config.kv_heads, dim)
        if norms:
            q, k = self._norm(q, norms[0]), self._norm(k, norms[1])
        k = self._rotate(k)
        v = graph.reshape(v, 0, 0, config.kv_heads, dim)
        for part, new in (("k", k), ("v", v)):
            rows = graph.op("Transpose", [new], perm=[0, 2, 1, 3])
            graph.op("ScatterND", [f"past_{part}.{layer}", "scatter", rows], [f"present_{part}.{layer}"])
        scale = graph.constant(np.array(config.score_scale(layer), dtype=self._dtype))
        q = graph.op("Mul", [self._rotate(q), scale])
        q = graph.reshape(graph.op("Transpose", [q], perm=[0, 2, 1, 3]), 0, config.kv_heads, -1, dim)
        keys = graph.op("Transpose", [f"present_k.{layer}"], perm=[0, 1, 3, 2])
        scores = graph.op("Add", [graph.op("MatMul", [q, keys]), "mask"])
        mixed = graph.op("MatMul", [graph.op("Softmax", [scores], axis=-1), f"present_v.{layer}"])
        heads = graph.op("Transpose", [graph.reshape(mixed, 0, config.heads, -1, dim)], perm=[0, 2, 1, 3])
        return graph.reshape(heads, 0, 0, config.query_width)

    def _rotate(self, x: str) -> str:
        """Apply the rotary embedding's tables [batch, tokens, 1, head size] to `x` [batch, tokens, heads,
        head size], if the model has rotary positions.
        """
        if not self._rotary:
            return x
        graph, half = self._graph, self._config.head_dim // 2
        first, second = graph.split(x, [half, half])
        turned = graph.op("Concat", [second, first], axis=-1)
        return graph.op(
            "Add", [graph.op("Mul", [x, self._rotary[0]]), graph.op("Mul", [turned, self._rotary[1]])]
        )
