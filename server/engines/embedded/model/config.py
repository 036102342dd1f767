"""The shape of a Mistral- or Llama-family decoder, read from a Hugging Face `config.json`.

Whatever would change the result and is not built here is refused by name.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import cast

from server.engines.embedded.model.rope import Rope, read_rope

ARCHITECTURES = {"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"}


class UnsupportedModelError(ValueError):
    """The checkpoint asks for something this engine does not do; the message names it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelConfig:
    """A decoder with grouped-query attention, rotary positions, RMSNorm and SwiGLU."""

    hidden: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    intermediate: int
    vocabulary: int
    context: int
    """Most positions (`max_position_embeddings`)."""
    norm_epsilon: float
    rope: Rope
    tied_head: bool
    """Whether the output head is the embedding, transposed."""
    sliding_window: int | None = None
    """A position sees itself and the `sliding_window - 1` before it; None: everything before it."""

    @property
    def query_width(self) -> int:
        """Features of all query heads together."""
        return self.heads * self.head_dim

    @property
    def kv_width(self) -> int:
        """Features of all key (or value) heads together."""
        return self.kv_heads * self.head_dim

    @property
    def shapes(self) -> dict[str, tuple[int, int]]:
        """Target module → (out features, in features)."""
        return {
            "q_proj": (self.query_width, self.hidden),
            "k_proj": (self.kv_width, self.hidden),
            "v_proj": (self.kv_width, self.hidden),
            "o_proj": (self.hidden, self.query_width),
            "gate_proj": (self.intermediate, self.hidden),
            "up_proj": (self.intermediate, self.hidden),
            "down_proj": (self.hidden, self.intermediate),
        }


def read_model_config(model_dir: Path) -> ModelConfig:
    """Read `config.json`. Raises `UnsupportedModelError` where the model is not one this engine runs."""
    path = model_dir / "config.json"
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModelError(
            f"{model_dir.name} has no config.json; is it a Hugging Face model?"
        ) from None
    except ValueError as error:
        raise UnsupportedModelError(f"config.json of {model_dir.name} is not JSON: {error}") from None
    if not isinstance(raw, dict):
        raise UnsupportedModelError(f"config.json of {model_dir.name} is not an object")
    return parse_config(cast("dict[str, object]", raw))


def parse_config(raw: Mapping[str, object]) -> ModelConfig:
    """The same from parsed JSON."""
    _refuse(raw)
    hidden, heads = _count(raw, "hidden_size"), _count(raw, "num_attention_heads")
    kv_heads = _count(raw, "num_key_value_heads") if raw.get("num_key_value_heads") is not None else heads
    if heads % kv_heads:
        raise UnsupportedModelError(
            f"num_key_value_heads {kv_heads} does not divide num_attention_heads {heads}"
        )
    if raw.get("head_dim") is not None:
        head_dim = _count(raw, "head_dim")
    elif hidden % heads:
        raise UnsupportedModelError(f"hidden_size {hidden} is no multiple of num_attention_heads {heads}")
    else:
        head_dim = hidden // heads
    if head_dim % 16:
        raise UnsupportedModelError(f"head_dim {head_dim} is no multiple of 16")
    context = _count(raw, "max_position_embeddings")
    try:
        rope = read_rope(raw, head_dim, context)
    except ValueError as error:
        raise UnsupportedModelError(str(error)) from None
    epsilon = raw.get("rms_norm_eps", 1e-6)
    if not isinstance(epsilon, float) or not 0.0 < epsilon < 1.0:
        raise UnsupportedModelError(f"rms_norm_eps {epsilon!r} is not a small positive number")
    return ModelConfig(
        hidden=hidden,
        layers=_count(raw, "num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        intermediate=_count(raw, "intermediate_size"),
        vocabulary=_count(raw, "vocab_size"),
        context=context,
        norm_epsilon=epsilon,
        rope=rope,
        tied_head=raw.get("tie_word_embeddings", False) is True,
        sliding_window=_count(raw, "sliding_window") if raw.get("sliding_window") is not None else None,
    )


def _refuse(raw: Mapping[str, object]) -> None:
    """Refuse what this engine would get wrong."""
    if raw.get("auto_map"):
        raise UnsupportedModelError("auto_map asks for code from the checkpoint, which is never run")
    family = raw.get("model_type")
    if not isinstance(family, str) or family not in ARCHITECTURES:
        raise UnsupportedModelError(
            f"model_type {family!r} is not supported; supported: {', '.join(ARCHITECTURES)}"
        )
    architectures = raw.get("architectures") or [ARCHITECTURES[family]]
    if architectures != [ARCHITECTURES[family]]:
        raise UnsupportedModelError(f"architectures {architectures!r} is not supported for a {family} model")
    if raw.get("hidden_act", "silu") != "silu":
        raise UnsupportedModelError(f"hidden_act {raw['hidden_act']!r} is not supported; supported: silu")
    for name in ("attention_bias", "mlp_bias"):
        if raw.get(name):
            raise UnsupportedModelError(f"{name} is not supported")
    if raw.get("quantization_config"):
        raise UnsupportedModelError(
            "quantization_config: give the float checkpoint; --quantize makes it smaller"
        )


def _count(raw: Mapping[str, object], name: str) -> int:
    """A field that has to be a positive integer."""
    value = raw.get(name)
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise UnsupportedModelError(f"{name} {value!r} is not a positive integer")
    return value
