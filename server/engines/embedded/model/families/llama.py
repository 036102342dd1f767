"""The Mistral and Llama model families.

Both use the decoder in the module `rotary`; a Llama decoder has biases if config.json sets them.
"""

from __future__ import annotations

from adapters.lora.families import LLAMA as LORA
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

_MISTRAL_WINDOW = 4096
_BIASES = {"attention_bias": ("qkv", "o"), "mlp_bias": ("gate", "up", "down")}
"""Maps each flag in Llama's config.json to the matrix products that have a bias if the flag is true."""


def read(raw: ConfigFields) -> ModelConfig:
    """Read a Mistral or Llama model's dimensions and options from config.json. See `Family.read`."""
    mistral = raw.get("model_type") == "mistral"
    for name in _BIASES:
        if mistral and raw.get(name):
            raise UnsupportedModelError(
                f"config.json: the field {name} is set, but a mistral model has no biases; remove this "
                "field, or use another base model"
            )
    biases = [group for name, groups in _BIASES.items() if read_flag(raw, name, False) for group in groups]
    return read_rotary(raw, LLAMA, window=_window(raw, mistral), biases=biases)


def _window(raw: ConfigFields, windowed: bool) -> int | None:
    """Return the sliding window of all layers, as transformers 5.23 computes it; None for full attention.

    `layer_types` decides, if it is present. Otherwise Llama has no sliding window, whatever `sliding_window`
    says (`modeling_llama`: `create_causal_mask`), and Mistral's window is 4096 by default (`MistralConfig`).
    Raises `UnsupportedModelError` if only some layers have a window.
    """
    found = read_layer_kinds(raw)
    if found == {FULL}:
        return None
    if found is not None and (
        found != {SLIDING} or not windowed or raw.get("sliding_window", _MISTRAL_WINDOW) is None
    ):
        raise UnsupportedModelError(
            f"config.json: the attention kinds {', '.join(sorted(found))} in layer_types are not supported "
            f"together; the embedded engine supports {FULL} in every layer, or {SLIDING} in every layer of a "
            "Mistral model with a sliding_window"
        )
    if not windowed or raw.get("sliding_window", _MISTRAL_WINDOW) is None:
        return None
    return read_count({"sliding_window": _MISTRAL_WINDOW, **raw}, "sliding_window")


LLAMA = Family(
    lora=LORA,
    architectures={"mistral": "MistralForCausalLM", "llama": "LlamaForCausalLM"},
    groups=GROUPS,
    read=read,
    write=write_rotary,
    computed=COMPUTED,
)
