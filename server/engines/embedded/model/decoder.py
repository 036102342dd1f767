"""Plans a base model's decoder as an ONNX graph, from its config alone. `builder` adds the weights later.

The model family (`families`) decides the order of the operations. `variants` writes the operations that
differ between the two graph variants: fused (for the CPU) and portable (for other devices).

The graph's inputs are listed below. B is the number of batch slots, S the number of tokens per slot, T the
number of KV cache positions per slot, and M the number of positions whose logits are computed:

    input_ids           int64  [B, S]
    positions           int64  [B, S]          portable only
    order               int64  [B, S]          portable only: 0, 1, 2, … along S, then B; see `unflatten`
    indices             int64  [M]             positions in the flattened B x S whose logits are computed
    seqlens_k           int32  [B]             fused only: each slot's positions after this run, minus one
    total_length        int32  []              fused only: the largest value of seqlens_k, plus one
    mask                float  [B, 1, GS, T]   portable only: 0 if visible, very negative if not; GS = (heads
                                               per KV head) x S, position fastest
    scatter             int64  [B, KV, S, 3]   portable only: (slot, KV head, position) to which each new key
                                               is written
    past_k.L, past_v.L  float  [B, KV, T, D]   keys and values of layer L; the outputs present_k.L and
                                               present_v.L have the same shape
    lora_mask.G         float  [B, 1, R_G]     portable: for each group G of linear modules, the factor of
                                               each LoRA rank column for each slot; zero means no adapter
                        float  [B x S, R_G]    fused: the same factors for each token
    lora_a.G.L          float  [in, R_G]       the A matrices of all adapters of the batch, side by side
    lora_b.G.L          float  [R_G, out]      the B matrices of all adapters of the batch, side by side

The graph has one more output, logits float32 [M, vocabulary]. If R_G is 0, no adapter is applied to group G,
which then costs about a microsecond.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from server.engines.embedded.model.checkpoint import Matrix
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.integer import IntegerProducts
from server.engines.embedded.model.plan import (
    MICROSOFT,
    NUMPY,
    ONNX_TYPES,
    Attribute,
    Dtype,
    GraphPlan,
    TensorSpec,
)
from server.engines.embedded.model.quantize import BITS, Quantize, block_count, packed_shape
from server.engines.embedded.model.variants import Variant


def plan_graph(config: ModelConfig, variant: Variant, dtype: Dtype, quantize: Quantize) -> GraphPlan:
    """Plan the whole decoder graph of a base model.

    Raises `ValueError` if the variant does not support this number format or quantisation.
    """
    variant.check(dtype, quantize)
    decoder = Decoder(config, variant, dtype, quantize)
    config.family.write(decoder)
    return decoder.graph


class Decoder:
    """Implements `Blocks`: the building blocks with which a model family writes its decoder into an ONNX
    graph.
    """

    def __init__(self, config: ModelConfig, variant: Variant, dtype: Dtype, quantize: Quantize) -> None:
        self.config = config
        self.graph = GraphPlan(prefix=config.family.lora.prefix)
        self._variant: Variant = variant
        self._dtype: Dtype = dtype
        self._quantize: Quantize = quantize
        self._integer = IntegerProducts(self.graph)
        self._operators = variant.operators(self.graph, config, dtype)
        self._float = NUMPY[dtype]
        self._ids = self.graph.input("input_ids", "int64", ["B", "S"])
        self.graph.input("indices", "int64", ["M"])
        for group in config.groups:
            rows = self._operators.mask_rows()
            self.graph.input(f"lora_mask.{group}", self._float, [*rows, f"R_{group}"])
        self._attention = self._operators.attention()

    def weight(self, name: str, *shape: int) -> str:
        """Add the checkpoint tensor `name` of this shape to the graph, in the graph's float type.

        See `Blocks.weight`.
        """
        return self.graph.copy_tensor(name, self._float, shape)

    def embed_tokens(self, name: str) -> str:
        """Look up the embedding of every token of the batch in the checkpoint tensor `name` [vocabulary,
        hidden]. See `Blocks.embed_tokens`.
        """
        self.graph.embedding = name
        table = self.weight(name, self.config.vocabulary, self.config.hidden)
        return self.graph.op("Gather", [table, self._operators.token_ids(self._ids)], axis=0)

    def embed_positions(self, name: str) -> str:
        """Look up the embedding of every token's position in the checkpoint tensor `name` [context, hidden].

        See `Blocks.embed_positions`.
        """
        table = self.weight(name, self.config.context, self.config.hidden)
        return self.graph.op("Gather", [table, self._operators.positions()], axis=0)

    def rms_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """Return (RMS norm of residual + update, residual + update). See `Blocks.rms_norm`."""
        return self._operators.rms_norm(name, self.weight(name, self.config.hidden), residual, update)

    def layer_norm(self, name: str, residual: str, update: str = "") -> tuple[str, str]:
        """Normalise residual + update with the LayerNorm `name`. Return the norm and the sum.

        See `Blocks.layer_norm`.
        """
        weight, bias = (self.weight(f"{name}.{part}", self.config.hidden) for part in ("weight", "bias"))
        return self._operators.layer_norm(name, weight, bias, residual, update)

    def attend(self, layer: int, qkv: str, norms: Sequence[str] = ()) -> str:
        """Compute attention from `qkv`, which holds queries, keys and values side by side. See
        `Blocks.attend`.
        """
        return self._attention.attend(layer, qkv, [self.weight(name, self.config.head_dim) for name in norms])

    def activate(self, x: str) -> str:
        """Apply the MLP's activation function (from the config) to `x`. See `Blocks.activate`."""
        return self._operators.activate(self.config.activation, x)

    def linear(self, group: str, layer: int, x: str) -> str:
        """Multiply `x` by the weights of all linear modules in `group`, and add their bias and their LoRA
        updates. See `Blocks.linear`.
        """
        graph = self.graph
        matrices = [self._matrix(layer, module) for module in self.config.groups[group]]
        features, out = matrices[0].features, sum(matrix.out for matrix in matrices)
        y = self._product(f"{group}.{layer}", self._operators.flatten(x, features), matrices)
        y = self._operators.unflatten(y)
        if group in self.config.biases:
            y = graph.op("Add", [y, self._bias(group, layer, matrices)])
        a = graph.input(f"lora_a.{group}.{layer}", self._float, [features, f"R_{group}"])
        b = graph.input(f"lora_b.{group}.{layer}", self._float, [f"R_{group}", out])
        bottleneck = graph.op("Mul", [graph.op("MatMul", [x, a]), f"lora_mask.{group}"])
        return self._operators.add_product(y, bottleneck, b)

    def choose_outputs(self, x: str) -> str:
        """Select the M positions of the batch for which logits are computed. See `Blocks.choose_outputs`."""
        flat = self._operators.flatten(x, self.config.hidden)
        return self.graph.op("Gather", [flat, "indices"], axis=0)

    def head(self, x: str, name: str) -> None:
        """Multiply the selected positions `x` by the checkpoint tensor `name` [vocabulary, hidden] to get
        their logits. See `Blocks.head`.
        """
        graph, config = self.graph, self.config
        if self._quantize == "none" and config.tied_head:
            logits = graph.op("Gemm", [x, name], transB=1)
        else:
            logits = self._product("head", x, [Matrix(name, config.vocabulary, config.hidden)])
        if self._dtype == "fp16":
            graph.op("Cast", [logits], ["logits"], to=ONNX_TYPES["float32"])
        else:
            graph.nodes[-1].output[0] = "logits"
        graph.output("logits", "float32", ["M", config.vocabulary])

    def _matrix(self, layer: int, module: str) -> Matrix:
        lora = self.config.family.lora
        out, features = self.config.shapes[module]
        name = f"{lora.module_name(layer, module)}.weight"
        return Matrix(name, out, features, lora.target(module).transposed)

    def _bias(self, group: str, layer: int, matrices: Sequence[Matrix]) -> str:
        """Add the biases of all linear modules in `group` to the graph, concatenated as one tensor."""
        lora, modules = self.config.family.lora, self.config.groups[group]
        parts = [
            self.weight(f"{lora.module_name(layer, module)}.bias", matrix.out)
            for module, matrix in zip(modules, matrices, strict=True)
        ]
        return parts[0] if len(parts) == 1 else self.graph.op("Concat", parts, axis=0)

    def _product(self, name: str, x: str, matrices: Sequence[Matrix]) -> str:
        graph, features = self.graph, matrices[0].features
        if self._quantize == "none":
            return graph.op("MatMul", [x, graph.transpose_matrices(name, matrices, self._float)])
        if self._quantize == "w8a8" and name != "head":
            return self._integer.product(name, x, matrices)
        bits = BITS["int8" if self._quantize == "w8a8" else self._quantize]
        out, block = (
            sum(matrix.out for matrix in matrices),
            self._variant.block_size(self.config.hidden, bits),
        )
        more, attributes = self._variant.describe_packing(name, out, features, bits, block)
        specs = [
            TensorSpec(f"{name}.packed", np.dtype(np.uint8), packed_shape(out, features, bits, block)),
            TensorSpec(f"{name}.scales", np.dtype(self._float), (out, block_count(features, block))),
            *more,
        ]
        sizes: dict[str, Attribute] = {"K": features, "N": out, "bits": bits, "block_size": block}
        graph.quantize_matrices(specs, matrices, bits, block)
        inputs = [x, *(spec.name for spec in specs)]
        return graph.op("MatMulNBits", inputs, (), domain=MICROSOFT, **sizes, **attributes)
