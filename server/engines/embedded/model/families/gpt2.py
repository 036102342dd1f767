"""The GPT-2 model family, which includes GPT-SW3.

It has learned positions, LayerNorm with bias, one matrix product for queries, keys and values together, and
an MLP of two products. All weights but the embeddings are stored as [in, out].
"""

from __future__ import annotations

from collections.abc import Mapping

from adapters.lora.families import GPT2 as LORA
from server.engines.embedded.model.config import (
    Activation,
    Blocks,
    ConfigFields,
    Family,
    ModelConfig,
    UnsupportedModelError,
    read_count,
    read_epsilon,
    read_flag,
)

EMBEDDING, POSITIONS = "transformer.wte.weight", "transformer.wpe.weight"
GROUPS = {"qkv": ("c_attn",), "o": ("attn.c_proj",), "up": ("c_fc",), "down": ("mlp.c_proj",)}
_ACTIVATIONS: Mapping[str, Activation] = {
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_accurate": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Maps `activation_function` in config.json to this engine's name of the function, as transformers' `ACT2FN`
does.
"""
_OTHER_NAMES = {
    "n_embd": "hidden_size",
    "n_head": "num_attention_heads",
    "n_layer": "num_hidden_layers",
    "n_positions": "max_position_embeddings",
}
"""Maps each GPT-2 field of config.json to its name in other model families. If both are set,
`GPT2Config.attribute_map` uses the latter.
"""


def read(raw: ConfigFields) -> ModelConfig:
    """Read a GPT-2 model's dimensions and options from config.json. See `Family.read`."""
    _refuse(raw)
    hidden, heads, layers = (read_count(raw, name) for name in ("n_embd", "n_head", "n_layer"))
    if hidden % heads:
        raise UnsupportedModelError(
            f"config.json: n_embd {hidden} is not a multiple of n_head {heads}; use another base model"
        )
    head_dim = hidden // heads
    if head_dim % 8:
        raise UnsupportedModelError(
            f"config.json: the head size {head_dim} (n_embd / n_head) is not a multiple of 8, as the "
            "embedded engine needs; use another base model"
        )
    return ModelConfig(
        family=GPT2,
        hidden=hidden,
        layers=layers,
        heads=heads,
        kv_heads=heads,
        head_dim=head_dim,
        intermediate=4 * hidden if raw.get("n_inner") is None else read_count(raw, "n_inner"),
        vocabulary=read_count(raw, "vocab_size"),
        context=read_count(raw, "n_positions"),
        norm_epsilon=read_epsilon(raw, "layer_norm_epsilon", 1e-5),
        rope=None,
        tied_head=read_flag(raw, "tie_word_embeddings", True),
        activation=_activation(raw),
        biases=frozenset(GROUPS),
        score_scales=tuple(_scale(raw, head_dim, layer) for layer in range(layers)),
    )


def write(blocks: Blocks) -> None:
    """Add the whole GPT-2 decoder to the graph, from token ids to logits. See `Family.write`."""
    config = blocks.config
    places = [blocks.embed_tokens(EMBEDDING), blocks.embed_positions(POSITIONS)]
    residual, update = blocks.graph.op("Add", places), ""
    for layer in range(config.layers):
        name = f"{LORA.layers}.{layer}"
        normed, residual = blocks.layer_norm(f"{name}.ln_1", residual, update)
        update = blocks.linear("o", layer, blocks.attend(layer, blocks.linear("qkv", layer, normed)))
        normed, residual = blocks.layer_norm(f"{name}.ln_2", residual, update)
        update = blocks.linear("down", layer, blocks.activate(blocks.linear("up", layer, normed)))
    residual, update = blocks.choose_outputs(residual), blocks.choose_outputs(update)
    normed, _ = blocks.layer_norm("transformer.ln_f", residual, update)
    blocks.head(normed, EMBEDDING if config.tied_head else "lm_head.weight")


def _scale(raw: ConfigFields, head_dim: int, layer: int) -> float:
    """Return the factor for a layer's attention scores, as transformers computes it (`modeling_gpt2`:
    `GPT2Attention.scaling`).
    """
    scale = head_dim**-0.5 if read_flag(raw, "scale_attn_weights", True) else 1.0
    return scale / (layer + 1) if read_flag(raw, "scale_attn_by_inverse_layer_idx", False) else scale


def _activation(raw: ConfigFields) -> Activation:
    name = raw.get("activation_function", "gelu_new")
    if not isinstance(name, str) or name not in _ACTIVATIONS:
        known = ", ".join(_ACTIVATIONS)
        raise UnsupportedModelError(
            f"config.json: activation_function {name!r} is not supported by the embedded engine; supported: "
            f"{known}"
        )
    return _ACTIVATIONS[name]


def _refuse(raw: ConfigFields) -> None:
    """Raise `UnsupportedModelError` if config.json sets an unsupported feature.

    `reorder_and_upcast_attn` is allowed, since it only changes rounding.
    """
    for name in ("add_cross_attention", "pruned_heads"):
        if raw.get(name):
            raise UnsupportedModelError(
                f"config.json: the field {name} is not supported by the embedded engine; use another base "
                "model"
            )
    for name, other in _OTHER_NAMES.items():
        if other in raw and raw[other] != raw.get(name):
            raise UnsupportedModelError(
                f"config.json: the field {other} {raw[other]!r} differs from {name} {raw.get(name)!r}, which "
                f"means the same; a gpt2 model uses {name}, so remove the other field"
            )


GPT2 = Family(
    lora=LORA,
    architectures={"gpt2": "GPT2LMHeadModel"},
    groups=GROUPS,
    read=read,
    write=write,
    # The causal mask and the value of masked scores, which older releases of transformers saved.
    computed=r"(?:.*\.)?attn\.(?:masked_)?bias",
)
