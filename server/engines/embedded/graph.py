"""The decoder as an ONNX graph, planned from its configuration alone; weights come later (`builder`).

Two variants share everything but norms, activation and attention:

- `gqa`, for the CPU: ONNX Runtime's fused operators, past and present one memory;
- `prim`, for device providers: ai.onnx operators only, static shapes, matrix products of rank 4 at most.

Quantised, both use `MatMulNBits`.

Inputs, with B rows, S positions a row, T positions of KV memory, M positions that want logits:

    input_ids           int64  [B, S]
    positions           int64  [B, S]          prim
    indices             int64  [M]             into B x S flattened: where the head runs
    seqlens_k           int32  [B]             gqa: each row's positions after this run, less one
    total_length        int32  []              gqa: the largest of them, plus one
    mask                float  [B, 1, GS, T]   prim: 0 where seen, very negative elsewhere; GS = (heads per
                                               KV head) x S, position fastest
    scatter             int64  [B, KV, S, 3]   prim: (row, KV head, position) that each new key goes to
    past_k.L, past_v.L  float  [B, KV, T, D]   for each layer L; outputs present_k.L, present_v.L alike
    lora_mask.G         float  [B, 1, R_G]     for each group G of adapted modules: what each row takes
                                               of each rank column; zero means no adapter
    lora_a.G.L          float  [in, R_G]       all adapters side by side
    lora_b.G.L          float  [R_G, out]

and output logits float32 [M, vocabulary]. R_G may be 0, which is exact and costs about a microsecond a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from server.engines.embedded.config import ModelConfig
from server.engines.embedded.plan import MICROSOFT, ONNX_TYPES, Attribute, GraphPlan, TensorSpec
from server.engines.embedded.quantize import (
    BITS,
    BLOCK,
    Quantize,
    block_count,
    packed_shape,
    zero_points_shape,
)

Variant = Literal["gqa", "prim"]
Dtype = Literal["fp32", "fp16"]
NUMPY: dict[Dtype, str] = {"fp32": "float32", "fp16": "float16"}
GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate_up": ("gate_proj", "up_proj"),
    "down": ("down_proj",),
}
"""Modules that read the same input and are computed by one product."""


def plan_graph(config: ModelConfig, variant: Variant, dtype: Dtype, quantize: Quantize) -> GraphPlan:
    """Plan the whole graph. Raises `ValueError` for a combination that is not built."""
    if variant == "gqa" and dtype != "fp32":
        raise ValueError(f"dtype {dtype} is for the prim variant; gqa is built in fp32")
    return _Decoder(config, variant, dtype, quantize).plan()


@dataclass(slots=True)
class _Decoder:
    """Writes one decoder into one plan."""

    config: ModelConfig
    variant: Variant
    dtype: Dtype
    quantize: Quantize
    graph: GraphPlan

    def __init__(self, config: ModelConfig, variant: Variant, dtype: Dtype, quantize: Quantize) -> None:
        self.config, self.variant, self.dtype, self.quantize = config, variant, dtype, quantize
        self.graph = GraphPlan()

    @property
    def float(self) -> str:
        """The graph's float type, as numpy names it."""
        return NUMPY[self.dtype]

    def plan(self) -> GraphPlan:
        """Everything from token ids to logits."""
        graph, config = self.graph, self.config
        ids = graph.input("input_ids", "int64", ["B", "S"])
        graph.input("indices", "int64", ["M"])
        for group in GROUPS:
            graph.input(f"lora_mask.{group}", self.float, ["B", 1, f"R_{group}"])
        rotary = self._attention_inputs()
        embedding = graph.copied("model.embed_tokens.weight", self.float, (config.vocabulary, config.hidden))
        residual, update = graph.op("Gather", [embedding, ids], axis=0), ""
        for layer in range(config.layers):
            normed, residual = self._norm(f"model.layers.{layer}.input_layernorm.weight", residual, update)
            qkv = self._linear("qkv", layer, normed)
            attended = self._attention(layer, qkv, rotary)
            update = self._linear("o", layer, attended)
            normed, residual = self._norm(
                f"model.layers.{layer}.post_attention_layernorm.weight", residual, update
            )
            gate, up = graph.split(self._linear("gate_up", layer, normed), [config.intermediate] * 2)
            update = self._linear("down", layer, graph.op("Mul", [self._silu(gate), up]))
        self._head(self._chosen(residual), self._chosen(update))
        return graph

    def _chosen(self, tensor: str) -> str:
        """Only the positions that want logits: [M, hidden]."""
        flat = self.graph.reshape(tensor, -1, self.config.hidden)
        return self.graph.op("Gather", [flat, "indices"], axis=0)

    def _head(self, residual: str, update: str) -> None:
        graph, config = self.graph, self.config
        normed, _ = self._norm("model.norm.weight", residual, update)
        source = "model.embed_tokens.weight" if config.tied_head else "lm_head.weight"
        if self.quantize == "none" and config.tied_head:
            logits = graph.op("Gemm", [normed, source], transB=1)
        else:
            logits = self._product("head", normed, [source], [config.vocabulary], config.hidden)
        if self.dtype == "fp16":
            graph.op("Cast", [logits], ["logits"], to=ONNX_TYPES["float32"])
        else:
            graph.nodes[-1].output[0] = "logits"
        graph.output("logits", "float32", ["M", config.vocabulary])

    def _linear(self, group: str, layer: int, x: str) -> str:
        """One product for all of a group's modules, and what the adapters add to it."""
        graph, config = self.graph, self.config
        folder = "self_attn" if group in ("qkv", "o") else "mlp"
        outs = [config.shapes[module][0] for module in GROUPS[group]]
        features = config.shapes[GROUPS[group][0]][1]
        sources = [f"model.layers.{layer}.{folder}.{module}.weight" for module in GROUPS[group]]
        y = self._product(f"{group}.{layer}", x, sources, outs, features)
        a = graph.input(f"lora_a.{group}.{layer}", self.float, [features, f"R_{group}"])
        b = graph.input(f"lora_b.{group}.{layer}", self.float, [f"R_{group}", sum(outs)])
        bottleneck = graph.op("Mul", [graph.op("MatMul", [x, a]), f"lora_mask.{group}"])
        return graph.op("Add", [y, graph.op("MatMul", [bottleneck, b])])

    def _product(self, name: str, x: str, sources: Sequence[str], outs: Sequence[int], features: int) -> str:
        graph = self.graph
        if self.quantize == "none":
            return graph.op("MatMul", [x, graph.transposed(name, sources, outs, features, self.float)])
        bits, out = BITS[self.quantize], sum(outs)
        specs = [
            TensorSpec(f"{name}.packed", np.dtype(np.uint8), packed_shape(out, features, bits)),
            TensorSpec(f"{name}.scales", np.dtype(self.float), (out, block_count(features))),
        ]
        attributes: dict[str, Attribute] = {"K": features, "N": out, "bits": bits, "block_size": BLOCK}
        if self.variant == "prim":
            shape = zero_points_shape(out, features, bits)
            specs.append(TensorSpec(f"{name}.zero_points", np.dtype(np.uint8), shape))
        else:
            attributes["accuracy_level"] = 4
        graph.quantized(specs, sources, outs, features, bits)
        return graph.op(
            "MatMulNBits", [x, *(spec.name for spec in specs)], (), domain=MICROSOFT, **attributes
        )

    def _norm(self, name: str, residual: str, update: str) -> tuple[str, str]:
        """(RMS norm of residual + update, residual + update); no update where there is none yet."""
        graph, config = self.graph, self.config
        weight = graph.copied(name, self.float, (config.hidden,))
        if self.variant == "prim":
            total = graph.op("Add", [residual, update]) if update else residual
            return self._plain_norm(weight, total), total
        if not update:
            inputs = [residual, weight]
            normed = graph.op("SimplifiedLayerNormalization", inputs, axis=-1, epsilon=config.norm_epsilon)
            return normed, residual
        outputs = [f"{name}.normed", "", "", f"{name}.sum"]
        inputs = [residual, update, weight]
        epsilon = config.norm_epsilon
        graph.op("SkipSimplifiedLayerNormalization", inputs, outputs, domain=MICROSOFT, epsilon=epsilon)
        return outputs[0], outputs[3]

    def _plain_norm(self, weight: str, x: str) -> str:
        """RMS norm of ai.onnx operators, its mean in float32."""
        graph = self.graph
        half = self.dtype == "fp16"
        wide = graph.op("Cast", [x], to=ONNX_TYPES["float32"]) if half else x
        square = graph.op("Mul", [wide, wide])
        mean = graph.op("ReduceMean", [square, graph.integers(-1)], keepdims=1)
        epsilon = graph.constant(np.array(self.config.norm_epsilon, np.float32))
        normed = graph.op("Div", [wide, graph.op("Sqrt", [graph.op("Add", [mean, epsilon])])])
        narrow = graph.op("Cast", [normed], to=ONNX_TYPES["float16"]) if half else normed
        return graph.op("Mul", [narrow, weight])

    def _silu(self, x: str) -> str:
        if self.variant == "gqa":
            return self.graph.op("QuickGelu", [x], domain=MICROSOFT, alpha=1.0)
        return self.graph.op("Mul", [x, self.graph.op("Sigmoid", [x])])

    def _attention_inputs(self) -> tuple[str, str]:
        """Declare what attention takes besides queries, keys and values; the two rotary tables or factors."""
        graph, config = self.graph, self.config
        cos, sin = config.rope.tables(config.head_dim, config.context)
        if self.variant == "gqa":
            graph.input("seqlens_k", "int32", ["B"])
            graph.input("total_length", "int32", [])
            return graph.table("rotary_cos", cos), graph.table("rotary_sin", sin)
        positions = graph.input("positions", "int64", ["B", "S"])
        graph.input("mask", self.float, ["B", 1, "GS", "T"])
        graph.input("scatter", "int64", ["B", config.kv_heads, "S", 3])
        axis = graph.integers(2)
        whole_cos = graph.table("rotary_cos", np.concatenate([cos, cos], axis=1).astype(self.float))
        whole_sin = graph.table("rotary_sin", np.concatenate([-sin, sin], axis=1).astype(self.float))
        chosen = [graph.op("Gather", [table, positions], axis=0) for table in (whole_cos, whole_sin)]
        return graph.op("Unsqueeze", [chosen[0], axis]), graph.op("Unsqueeze", [chosen[1], axis])

    def _attention(self, layer: int, qkv: str, rotary: tuple[str, str]) -> str:
        """Store the new keys and values, attend; [B, S, query width]."""
        graph, config = self.graph, self.config
        shape = ["B", config.kv_heads, "T", config.head_dim]
        for part in "kv":
            graph.input(f"past_{part}.{layer}", self.float, shape)
            graph.output(f"present_{part}.{layer}", self.float, shape)
        return (
            self._fused_attention(layer, qkv, rotary)
            if self.variant == "gqa"
            else self._plain(layer, qkv, rotary)
        )

    def _fused_attention(self, layer: int, qkv: str, rotary: tuple[str, str]) -> str:
        config = self.config
        inputs = [qkv, "", "", f"past_k.{layer}", f"past_v.{layer}", "seqlens_k", "total_length", *rotary]
        outputs = [f"attended.{layer}", f"present_k.{layer}", f"present_v.{layer}"]
        attributes: dict[str, Attribute] = {"num_heads": config.heads, "kv_num_heads": config.kv_heads}
        attributes |= {"scale": config.head_dim**-0.5, "do_rotary": 1, "rotary_interleaved": 0}
        if config.sliding_window is not None:
            attributes["local_window_size"] = config.sliding_window
        return self.graph.op("GroupQueryAttention", inputs, outputs, domain=MICROSOFT, **attributes)

    def _plain(self, layer: int, qkv: str, rotary: tuple[str, str]) -> str:
        graph, config = self.graph, self.config
        kv_heads, dim = config.kv_heads, config.head_dim
        q, k, v = graph.split(qkv, [config.query_width, config.kv_width, config.kv_width])
        q = self._rotate(graph.reshape(q, 0, 0, config.heads, dim), rotary)
        k = self._rotate(graph.reshape(k, 0, 0, kv_heads, dim), rotary)
        v = graph.reshape(v, 0, 0, kv_heads, dim)
        for part, new in (("k", k), ("v", v)):
            rows = graph.op("Transpose", [new], perm=[0, 2, 1, 3])
            graph.op("ScatterND", [f"past_{part}.{layer}", "scatter", rows], [f"present_{part}.{layer}"])
        q = graph.op("Mul", [q, graph.constant(np.array(dim**-0.5, dtype=self.float))])
        q = graph.reshape(graph.op("Transpose", [q], perm=[0, 2, 1, 3]), 0, kv_heads, -1, dim)
        keys = graph.op("Transpose", [f"present_k.{layer}"], perm=[0, 1, 3, 2])
        scores = graph.op("Add", [graph.op("MatMul", [q, keys]), "mask"])
        mixed = graph.op("MatMul", [graph.op("Softmax", [scores], axis=-1), f"present_v.{layer}"])
        heads = graph.op("Transpose", [graph.reshape(mixed, 0, config.heads, -1, dim)], perm=[0, 2, 1, 3])
        return graph.reshape(heads, 0, 0, config.query_width)

    def _rotate(self, x: str, rotary: tuple[str, str]) -> str:
        """Rotate [B, S, heads, D] by the factors [B, S, 1, D]."""
        graph, half = self.graph, self.config.head_dim // 2
        first, second = graph.split(x, [half, half])
        turned = graph.op("Concat", [second, first], axis=-1)
        return graph.op("Add", [graph.op("Mul", [x, rotary[0]]), graph.op("Mul", [turned, rotary[1]])])
