"""GPT-2 as one module of `families` would be: learned positions, LayerNorm with bias, one fused `c_attn`
that is stored as [in, out], GELU, a tied head. The engine does not ship it."""

from __future__ import annotations

import math

import numpy as np

from server.engines.embedded.model.config import Blocks, ConfigFields, Family, ModelConfig, read_count
from tests.adapters.lora.gpt2 import GPT2 as LORA

EMBEDDING, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"


def read(raw: ConfigFields) -> ModelConfig:
    hidden, heads = read_count(raw, "n_embd"), read_count(raw, "n_head")
    return ModelConfig(
        family=GPT2,
        hidden=hidden,
        layers=read_count(raw, "n_layer"),
        heads=heads,
        kv_heads=heads,
        head_dim=hidden // heads,
        intermediate=4 * hidden,
        vocabulary=read_count(raw, "vocab_size"),
        context=read_count(raw, "n_positions"),
        norm_epsilon=1e-5,
        rope=None,
        tied_head=True,
    )


def write(blocks: Blocks) -> None:
    graph = blocks.graph
    x = graph.op("Add", [blocks.embed_tokens(EMBEDDING), blocks.embed_positions(POSITIONS)])
    for layer in range(blocks.config.layers):
        name = f"{LORA.layers}.{layer}"
        qkv = blocks.linear("qkv", layer, layer_norm(blocks, f"{name}.ln_1", x), bias=True)
        attended = blocks.linear("o", layer, blocks.attend(layer, qkv), bias=True)
        x = graph.op("Add", [x, attended])
        up = blocks.linear("up", layer, layer_norm(blocks, f"{name}.ln_2", x), bias=True)
        x = graph.op("Add", [x, blocks.linear("down", layer, gelu(blocks, up), bias=True)])
    blocks.head(layer_norm(blocks, "transformer.ln_f", blocks.choose_outputs(x)), EMBEDDING)


def layer_norm(blocks: Blocks, name: str, x: str) -> str:
    weight, bias = (blocks.weight(f"{name}.{part}", blocks.config.hidden) for part in ("weight", "bias"))
    return blocks.graph.op(
        "LayerNormalization", [x, weight, bias], axis=-1, epsilon=blocks.config.norm_epsilon
    )


def gelu(blocks: Blocks, x: str) -> str:
    """The approximation by tanh (Hendrycks and Gimpel, 2016)."""
    graph = blocks.graph
    half, one, cubic, scale = (
        graph.constant(np.array(value, np.float32)) for value in (0.5, 1.0, 0.044715, math.sqrt(2 / math.pi))
    )
    cube = graph.op("Mul", [graph.op("Mul", [x, x]), x])
    inner = graph.op("Mul", [graph.op("Add", [x, graph.op("Mul", [cube, cubic])]), scale])
    return graph.op("Mul", [graph.op("Mul", [x, half]), graph.op("Add", [graph.op("Tanh", [inner]), one])])


GPT2 = Family(
    lora=LORA,
    architectures={"gpt2": "GPT2LMHeadModel"},
    groups={"qkv": ("c_attn",), "o": ("attn.c_proj",), "up": ("c_fc",), "down": ("mlp.c_proj",)},
    read=read,
    write=write,
    computed=r"(?:.*\.)?attn\.(?:masked_)?bias",
)
