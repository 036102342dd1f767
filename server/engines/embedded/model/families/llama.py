"""Mistral and Llama: grouped-query attention, rotary positions, RMSNorm, SwiGLU, no biases."""

from __future__ import annotations

from typing import cast

from adapters.lora.families import LLAMA as LORA
from server.engines.embedded.model.config import (
    Blocks,
    ConfigFields,
    Family,
    ModelConfig,
    UnsupportedModelError,
    read_count,
)
from server.engines.embedded.model.rope import read_rope

EMBEDDING = "model.embed_tokens.weight"
_MISTRAL_WINDOW = 4096
_LEGACY_KINDS = {"attention": "full_attention"}
"""`_LEGACY_LAYER_TYPE_REMAP` in transformers' `configuration_utils`."""


def read(raw: ConfigFields) -> ModelConfig:
    """See `Family.read`."""
    _refuse(raw)
    hidden, heads = read_count(raw, "hidden_size"), read_count(raw, "num_attention_heads")
    grouped = raw.get("num_key_value_heads") is not None
    kv_heads = read_count(raw, "num_key_value_heads") if grouped else heads
    if heads % kv_heads:
        raise UnsupportedModelError(
            f"num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}"
        )
    if raw.get("head_dim") is not None:
        head_dim = read_count(raw, "head_dim")
    elif hidden % heads:
        raise UnsupportedModelError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    else:
        head_dim = hidden // heads
    if head_dim % 16:
        raise UnsupportedModelError(f"head_dim {head_dim} is no multiple of 16")
    context = read_count(raw, "max_position_embeddings")
    try:
        rope = read_rope(raw, head_dim, context)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from None
    epsilon = raw.get("rms_norm_eps", 1e-6)
    if not isinstance(epsilon, float) or not 0.0 < epsilon < 1.0:
        raise UnsupportedModelError(f"rms_norm_eps {epsilon!r} is not a small positive number")
    layers = read_count(raw, "num_hidden_layers")
    return ModelConfig(
        family=LLAMA,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=read_count(raw, "intermediate_size"),
        vocabulary=read_count(raw, "vocab_size"),
        context=context,
        norm_epsilon=epsilon,
        rope=rope,
        tied_head=raw.get("tie_word_embeddings", False) is True,
        sliding_window=_window(raw, layers),
    )


def write(blocks: Blocks) -> None:
    """See `Family.write`."""
    config = blocks.config
    residual, update = blocks.embed_tokens(EMBEDDING), ""
    for layer in range(config.layers):
        name = f"{LORA.layers}.{layer}"
        normed, residual = blocks.rms_norm(f"{name}.input_layernorm.weight", residual, update)
        update = blocks.linear("o", layer, blocks.attend(layer, blocks.linear("qkv", layer, normed)))
        normed, residual = blocks.rms_norm(f"{name}.post_attention_layernorm.weight", residual, update)
        gate, up = blocks.linear("gate", layer, normed), blocks.linear("up", layer, normed)
        update = blocks.linear("down", layer, blocks.graph.op("Mul", [blocks.silu(gate), up]))
    residual, update = blocks.choose_outputs(residual), blocks.choose_outputs(update)
    normed, _ = blocks.rms_norm("model.norm.weight", residual, update)
    blocks.head(normed, EMBEDDING if config.tied_head else "lm_head.weight")


def _window(raw: ConfigFields, layers: int) -> int | None:
    """The window of every layer, as transformers 5.23 has it.

    Llama has none, whatever `sliding_window` says (`modeling_llama`: `create_causal_mask`). Mistral's is 4096
    if config.json leaves the field out (`MistralConfig`). `layer_types` goes before both. Raises
    `UnsupportedModelError` if it asks for windows in some layers alone.
    """
    windowed = raw.get("model_type") == "mistral"
    kinds = raw.get("layer_types")
    if kinds is not None:
        if not isinstance(kinds, list) or len(cast("list[object]", kinds)) != layers:
            raise UnsupportedModelError(f"layer_types does not name the kind of each of the {layers} layers")
        found = {_LEGACY_KINDS.get(str(kind), str(kind)) for kind in cast("list[object]", kinds)}
        if found == {"full_attention"}:
            return None
        if found != {"sliding_attention"} or not windowed or raw.get("sliding_window", 0) is None:
            named = ", ".join(sorted(found))
            raise UnsupportedModelError(
                f"layer_types asks for {named}; supported: full_attention in every layer, or "
                "sliding_attention in every layer of a Mistral with a sliding_window"
            )
    if not windowed or raw.get("sliding_window", _MISTRAL_WINDOW) is None:
        return None
    return read_count({"sliding_window": _MISTRAL_WINDOW, **raw}, "sliding_window")


def _refuse(raw: ConfigFields) -> None:
    """Refuse what this decoder would get wrong."""
    if raw.get("hidden_act", "silu") != "silu":
        raise UnsupportedModelError(f"hidden_act {raw['hidden_act']!r} is not supported; supported: silu")
    for name in ("attention_bias", "mlp_bias"):
        if raw.get(name):
            raise UnsupportedModelError(f"{name} is not supported")


LLAMA = Family(
    lora=LORA,
    architectures={"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"},
    # Gate and up are two: splitting one product's result costs more than it saves.
    groups={
        "qkv": ("q_proj", "k_proj", "v_proj"),
        "o": ("o_proj",),
        "gate": ("gate_proj",),
        "up": ("up_proj",),
        "down": ("down_proj",),
    },
    read=read,
    write=write,
    # transformers, `_adjust_missing_and_unexpected_keys`: old checkpoints hold them for each layer.
    computed=r"(?:.*\.)?rotary_emb\.(?:(?:original_)?inv_freq|cos_cached|sin_cached)",
)
