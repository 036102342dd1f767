"""The decoder that Mistral, Llama and Qwen share: grouped-query attention, rotary positions, RMSNorm and
SwiGLU.

The modules `llama` and `qwen` read from config.json what differs: which matrix products have a bias, if each
head's queries and keys are normalised, and the sliding window.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import cast

from server.engines.embedded.model.config import (
    Blocks,
    ConfigFields,
    Family,
    ModelConfig,
    UnsupportedModelError,
    read_count,
    read_epsilon,
)
from server.engines.embedded.model.rope import Rope, read_rope

EMBEDDING = "model.embed_tokens.weight"
# Gate and up are separate products: splitting the result of a joint one would cost more than it saves.
GROUPS = {
    "qkv": ("q_proj", "k_proj", "v_proj"),
    "o": ("o_proj",),
    "gate": ("gate_proj",),
    "up": ("up_proj",),
    "down": ("down_proj",),
}
COMPUTED = r"(?:.*\.)?rotary_emb\.(?:(?:original_)?inv_freq|cos_cached|sin_cached)"
"""Pattern for names of rotary tables, which old checkpoints hold for each layer and the decoder computes
itself. From transformers' `_adjust_missing_and_unexpected_keys`.
"""
FULL, SLIDING = "full_attention", "sliding_attention"
_LEGACY_KINDS = {"attention": FULL}
"""Maps old values of `layer_types` to current ones, like `_LEGACY_LAYER_TYPE_REMAP` in transformers'
`configuration_utils`.
"""


def read_rotary(
    raw: ConfigFields,
    family: Family,
    *,
    window: int | None,
    biases: Collection[str] = (),
    head_norm: bool = False,
    head_dim: int | None = None,
) -> ModelConfig:
    """Read the dimensions of a rotary decoder from config.json. `head_dim` is used if config.json does not
    set it.

    Raises `UnsupportedModelError` for a value that the engine does not support.
    """
    if raw.get("hidden_act", "silu") != "silu":
        raise UnsupportedModelError(
            f"config.json: hidden_act {raw['hidden_act']!r} is not supported by the embedded engine; "
            "supported: silu"
        )
    hidden, heads = read_count(raw, "hidden_size"), read_count(raw, "num_attention_heads")
    grouped = raw.get("num_key_value_heads") is not None
    kv_heads = read_count(raw, "num_key_value_heads") if grouped else heads
    if heads % kv_heads:
        raise UnsupportedModelError(
            f"config.json: num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}; use "
            "another base model"
        )
    size = _head_dim(raw, hidden, heads, head_dim)
    context = read_count(raw, "max_position_embeddings")
    return ModelConfig(
        family=family,
        hidden=hidden,
        layers=read_count(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=size,
        intermediate=read_count(raw, "intermediate_size"),
        vocabulary=read_count(raw, "vocab_size"),
        context=context,
        norm_epsilon=read_epsilon(raw, "rms_norm_eps", 1e-6),
        rope=_rope(raw, size, context),
        tied_head=raw.get("tie_word_embeddings", False) is True,
        sliding_window=window,
        biases=frozenset(biases),
        head_norm=head_norm,
    )


def write_rotary(blocks: Blocks) -> None:
    """Add the whole rotary decoder to the graph, from token ids to logits. See `Family.write`."""
    config, layers = blocks.config, blocks.config.family.lora.layers
    residual, update = blocks.embed_tokens(EMBEDDING), ""
    for layer in range(config.layers):
        name = f"{layers}.{layer}"
        norms = [f"{name}.self_attn.{part}_norm.weight" for part in "qk"] if config.head_norm else []
        normed, residual = blocks.rms_norm(f"{name}.input_layernorm.weight", residual, update)
        attended = blocks.attend(layer, blocks.linear("qkv", layer, normed), norms)
        update = blocks.linear("o", layer, attended)
        normed, residual = blocks.rms_norm(f"{name}.post_attention_layernorm.weight", residual, update)
        gate, up = blocks.linear("gate", layer, normed), blocks.linear("up", layer, normed)
        update = blocks.linear("down", layer, blocks.graph.op("Mul", [blocks.activate(gate), up]))
    residual, update = blocks.choose_outputs(residual), blocks.choose_outputs(update)
    normed, _ = blocks.rms_norm("model.norm.weight", residual, update)
    blocks.head(normed, EMBEDDING if config.tied_head else "lm_head.weight")


def read_layer_kinds(raw: ConfigFields) -> set[str] | None:
    """Return the set of attention kinds that `layer_types` in config.json names; None if the field is
    missing.

    Raises `UnsupportedModelError` unless the field has one entry per layer.
    """
    kinds = raw.get("layer_types")
    if kinds is None:
        return None
    layers = read_count(raw, "num_hidden_layers")
    if not isinstance(kinds, list) or len(cast("list[object]", kinds)) != layers:
        raise UnsupportedModelError(
            f"config.json: layer_types is not a list with one entry for each of the {layers} layers; "
            "download the model again"
        )
    return {_LEGACY_KINDS.get(str(kind), str(kind)) for kind in cast("list[object]", kinds)}


def _head_dim(raw: ConfigFields, hidden: int, heads: int, default: int | None) -> int:
    if raw.get("head_dim") is not None:
        size = read_count(raw, "head_dim")
    elif default is not None:
        size = default
    elif hidden % heads:
        raise UnsupportedModelError(
            f"config.json: hidden_size {hidden} is not a multiple of num_attention_heads {heads}; use "
            "another base model"
        )
    else:
        size = hidden // heads
    if size % 16:
        raise UnsupportedModelError(
            f"config.json: head_dim {size} is not a multiple of 16, as the embedded engine needs; use "
            "another base model"
        )
    return size


def _rope(raw: ConfigFields, head_dim: int, context: int) -> Rope:
    try:
        return read_rope(raw, head_dim, context)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from None
