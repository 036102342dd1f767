"""The decoder as an ONNX graph, planned from its configuration alone; weights come later (`builder`).

Two variants share everything but norms, activation and attention:

- `fused`, for the CPU: ONNX Runtime's fused operators, past and present one memory;
- `portable`, for device providers: ai.onnx operators only, static shapes, matrix products of rank 4 at most.

Quantised, both use `MatMulNBits`, or `fused` integer products (`integer`).

Inputs, with B rows, S positions a row, T positions of KV memory, M positions that want logits:

    input_ids           int64  [B, S]
    positions           int64  [B, S]          portable
    order               int64  [B, S]          portable: 0, 1, 2, … along S, then B; see `_rows_apart`
    indices             int64  [M]             into B x S flattened: where the head runs
    seqlens_k           int32  [B]             fused: each row's positions after this run, less one
    total_length        int32  []              fused: the largest of them, plus one
    mask                float  [B, 1, GS, T]   portable: 0 where seen, very negative elsewhere; GS = (heads
                                               per KV head) x S, position fastest
    scatter             int64  [B, KV, S, 3]   portable: (row, KV head, position) that each new key goes to
    past_k.L, past_v.L  float  [B, KV, T, D]   for each layer L; outputs present_k.L, present_v.L alike
    lora_mask.G         float  [B, 1, R_G]     portable: for each group G of adapted modules, what each row
                                               takes of each rank column; zero means no adapter
                        float  [B x S, R_G]    fused: the same for each position
    lora_a.G.L          float  [in, R_G]       all adapters side by side
    lora_b.G.L          float  [R_G, out]

and output logits float32 [M, vocabulary]. R_G may be 0, which is exact and costs about a microsecond a group.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np

from server.engines.embedded.model.attention import Attention, FusedAttention, PortableAttention
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.integer import IntegerProducts
from server.engines.embedded.model.plan import MICROSOFT, ONNX_TYPES, Attribute, GraphPlan, TensorSpec
from server.engines.embedded.model.quantize import (
    BITS,
    BLOCK,
    WIDE_BLOCK,
    Quantize,
    block_count,
    packed_shape,
    zero_points_shape,
)

Variant = Literal["fused", "portable"]
Dtype = Literal["fp32", "fp16"]
NUMPY: dict[Dtype, str] = {"fp32": "float32", "fp16": "float16"}
GROUPS: dict[str, tuple[str, ...]] = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate": ("gate_proj",),
    "up": ("up_proj",),
    "down": ("down_proj",),
}
"""Modules that are computed by one product. Gate and up are two: splitting them costs more than it saves."""


BIG_HIDDEN = 2048
"""From this width on a base bears wide blocks: the more inputs a product sums, the more its errors cancel."""


def block_size(config: ModelConfig, variant: Variant, bits: int) -> int:
    """Weights that share a scale."""
    return WIDE_BLOCK if variant == "fused" and bits == 4 and config.hidden >= BIG_HIDDEN else BLOCK


def plan_graph(config: ModelConfig, variant: Variant, dtype: Dtype, quantize: Quantize) -> GraphPlan:
    """Plan the whole graph. Raises `ValueError` for a combination that is not built."""
    if variant == "fused" and dtype != "fp32":
        raise ValueError(f"dtype {dtype} is for the portable variant; fused is built in fp32")
    if variant == "portable" and quantize == "w8a8":
        raise ValueError("quantize w8a8 is for the fused variant; portable is built with none, int8 or int4")
    return _Decoder(config, variant, dtype, quantize).plan()


class _Decoder:
    """Writes one decoder into one plan."""

    def __init__(self, config: ModelConfig, variant: Variant, dtype: Dtype, quantize: Quantize) -> None:
        self.config = config
        self.variant: Variant = variant
        self.dtype: Dtype = dtype
        self.quantize: Quantize = quantize
        self.graph = GraphPlan()
        self.integer = IntegerProducts(self.graph)

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
            rows = ["B", 1] if self.variant == "portable" else ["N"]
            graph.input(f"lora_mask.{group}", self.float, [*rows, f"R_{group}"])
        attention: Attention = (
            FusedAttention(graph, config)
            if self.variant == "fused"
            else PortableAttention(graph, config, self.float)
        )
        embedding = graph.copied("model.embed_tokens.weight", self.float, (config.vocabulary, config.hidden))
        flat = ids if self.variant == "portable" else graph.reshape(ids, -1)
        residual, update = graph.op("Gather", [embedding, flat], axis=0), ""
        for layer in range(config.layers):
            normed, residual = self._norm(f"model.layers.{layer}.input_layernorm.weight", residual, update)
            qkv = self._linear("qkv", layer, normed)
            update = self._linear("o", layer, attention.attend(layer, qkv))
            normed, residual = self._norm(
                f"model.layers.{layer}.post_attention_layernorm.weight", residual, update
            )
            gate, up = self._linear("gate", layer, normed), self._linear("up", layer, normed)
            update = self._linear("down", layer, graph.op("Mul", [self._silu(gate), up]))
        self._head(self._chosen(residual), self._chosen(update))
        return graph

    def _chosen(self, tensor: str) -> str:
        """Only the positions that want logits: [M, hidden]."""
        portable = self.variant == "portable"
        flat = self.graph.reshape(tensor, -1, self.config.hidden) if portable else tensor
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
        flat = graph.reshape(x, -1, features) if self.variant == "portable" else x
        y = self._product(f"{group}.{layer}", flat, sources, outs, features)
        if self.variant == "portable":
            y = self._rows_apart(y)
        a = graph.input(f"lora_a.{group}.{layer}", self.float, [features, f"R_{group}"])
        b = graph.input(f"lora_b.{group}.{layer}", self.float, [f"R_{group}", sum(outs)])
        bottleneck = graph.op("Mul", [graph.op("MatMul", [x, a]), f"lora_mask.{group}"])
        if self.variant == "fused":
            return graph.op("Gemm", [bottleneck, b, y])
        return graph.op("Add", [y, graph.op("MatMul", [bottleneck, b])])

    def _rows_apart(self, flat: str) -> str:
        """[B x S, features] as [B, S, features].

        DirectML gives a product of rank 3 a weight for each row of the batch, and where it is quantised that
        many unpacked copies of it; so each product is of rank 2, over all positions. No constant shape leads
        back from there, whatever B and S.
        """
        return self.graph.op("Gather", [flat, "order"], axis=0)

    def _product(self, name: str, x: str, sources: Sequence[str], outs: Sequence[int], features: int) -> str:
        graph = self.graph
        if self.quantize == "none":
            return graph.op("MatMul", [x, graph.transposed(name, sources, outs, features, self.float)])
        if self.quantize == "w8a8" and name != "head":
            return self.integer.product(name, x, sources, outs, features)
        bits, out = BITS["int8" if self.quantize == "w8a8" else self.quantize], sum(outs)
        block = block_size(self.config, self.variant, bits)
        specs = [
            TensorSpec(f"{name}.packed", np.dtype(np.uint8), packed_shape(out, features, bits, block)),
            TensorSpec(f"{name}.scales", np.dtype(self.float), (out, block_count(features, block))),
        ]
        attributes: dict[str, Attribute] = {"K": features, "N": out, "bits": bits, "block_size": block}
        if self.variant == "portable":
            shape = zero_points_shape(out, features, bits, block)
            specs.append(TensorSpec(f"{name}.zero_points", np.dtype(np.uint8), shape))
        else:
            attributes["accuracy_level"] = 4
        graph.quantized(specs, sources, outs, features, bits, block)
        return graph.op(
            "MatMulNBits", [x, *(spec.name for spec in specs)], (), domain=MICROSOFT, **attributes
        )

    def _norm(self, name: str, residual: str, update: str) -> tuple[str, str]:
        """(RMS norm of residual + update, residual + update); no update where there is none yet."""
        graph, config = self.graph, self.config
        weight = graph.copied(name, self.float, (config.hidden,))
        if self.variant == "portable":
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
        mean = graph.op("ReduceMean", [square], axes=[-1], keepdims=1)
        epsilon = graph.constant(np.array(self.config.norm_epsilon, np.float32))
        normed = graph.op("Div", [wide, graph.op("Sqrt", [graph.op("Add", [mean, epsilon])])])
        narrow = graph.op("Cast", [normed], to=ONNX_TYPES["float16"]) if half else normed
        return graph.op("Mul", [narrow, weight])

    def _silu(self, x: str) -> str:
        if self.variant == "fused":
            return self.graph.op("QuickGelu", [x], domain=MICROSOFT, alpha=1.0)
        return self.graph.op("Mul", [x, self.graph.op("Sigmoid", [x])])
