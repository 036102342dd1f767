"""The Qwen2 and Qwen3 model families.

They use the decoder in the module `rotary`, like Llama. Qwen2 adds biases to queries, keys and values; Qwen3
normalises each head's queries and keys.
"""

from __future__ import annotations

from adapters.lora import families as lora
from server.engines.embedded.model.config import (
    ConfigFields,
    Family,
    ModelConfig,
    UnsupportedModelError,
    read_count,
    read_flag,
)
from server.engines.embedded.model.families.rotary import (
    COMPUTED,
    FULL,
    GROUPS,
    SLIDING,
    read_layer_kinds,
    read_rotary,
    write_rotary,
)

_WINDOW, _FULL_LAYERS, _HEAD_DIM = 4096, 28, 128
"""Defaults in transformers: `sliding_window` and `max_window_layers` of `Qwen2Config` and `Qwen3Config`, and
`head_dim` of `Qwen3Config`.
"""


def read_qwen2(raw: ConfigFields) -> ModelConfig:
    """Read a Qwen2 model's dimensions and options from config.json. See `Family.read`."""
    return read_rotary(raw, QWEN2, window=_window(raw), biases=("qkv",))


def read_qwen3(raw: ConfigFields) -> ModelConfig:
    """Read a Qwen3 model's dimensions and options from config.json. See `Family.read`."""
    biases = ("qkv", "o") if read_flag(raw, "attention_bias", False) else ()
    return read_rotary(raw, QWEN3, window=_window(raw), biases=biases, head_norm=True, head_dim=_HEAD_DIM)


def _window(raw: ConfigFields) -> int | None:
    """Return the sliding window of all layers, as transformers 5.23 computes it
    (`Qwen2Config.__post_init__`); None for full attention.

    With `use_sliding_window`, layers from `max_window_layers` on have a sliding window, unless `layer_types`
    says otherwise. Raises `UnsupportedModelError` if only some layers have one.
    """
    layers = read_count(raw, "num_hidden_layers")
    used = read_flag(raw, "use_sliding_window", False) and raw.get("sliding_window", _WINDOW) is not None
    found = read_layer_kinds(raw)
    if found is not None:
        asked = f"layer_types names {', '.join(sorted(found))}"
    elif not used:
        return None
    else:
        whole = _full_layers(raw)
        found = ({FULL} if whole > 0 else set[str]()) | ({SLIDING} if whole < layers else set[str]())
        asked = f"use_sliding_window with max_window_layers {whole} gives only some layers a sliding window"
    if found == {FULL}:
        return None
    if found != {SLIDING} or not used:
        raise UnsupportedModelError(
            f"config.json has unsupported attention layers: {asked}; the embedded engine supports {FULL} in "
            f"every layer, or {SLIDING} in every layer with use_sliding_window and a sliding_window"
        )
    return read_count({"sliding_window": _WINDOW, **raw}, "sliding_window")


def _full_layers(raw: ConfigFields) -> int:
    value = raw.get("max_window_layers", _FULL_LAYERS)
    if not isinstance(value, int) or isinstance(value, bool):
        raise UnsupportedModelError(
            f"config.json: max_window_layers {value!r} is not an integer; download the model again"
        )
    return value


QWEN2 = Family(
    lora=lora.QWEN2,
    architectures={"qwen2": "Qwen2ForCausalLM"},
    groups=GROUPS,
    read=read_qwen2,
    write=write_rotary,
    computed=COMPUTED,
)
QWEN3 = Family(
    lora=lora.QWEN3,
    architectures={"qwen3": "Qwen3ForCausalLM"},
    groups=GROUPS,
    read=read_qwen3,
    write=write_rotary,
    computed=COMPUTED,
)
