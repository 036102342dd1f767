"""Refuse adapters that use PEFT options beyond a plain LoRA, with the reason.

A newer PEFT adds fields for new variants of LoRA. An unknown field is therefore accepted only if it is off
(null, false, 0, empty). Ignoring it would serve something else than what was trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from adapters.errors import AdapterError
from adapters.lora.families import FAMILIES

_SHARED = "this option changes weights of the base, which all adapters share"
_CODE = "this field asks to run code that comes with the adapter"
_UNSERVED = "this variant of LoRA is not served"
_RETRAIN = "Train the adapter as a plain LoRA on the projections alone."
_REMOVE = "Remove the field if the adapter works without it."

_MLX = "lora_parameters"
"""Field that mlx-lm writes to its own adapter_config.json, which has no `peft_type`."""
_REWRITE = (
    "Write it as PEFT does: lora_a and lora_b transposed, as lora_A and lora_B, with r = rank and "
    "lora_alpha = rank * scale."
)

_MUST_BE_OFF: Mapping[str, tuple[str, str]] = {
    "use_dora": (
        "DoRA rescales the base's weights, which all adapters share",
        "Train the adapter with use_dora=False.",
    ),
    "lora_bias": ("biases are not served", "Train the adapter with lora_bias=False."),
    "modules_to_save": (_SHARED, _RETRAIN),
    "trainable_token_indices": (_SHARED, _RETRAIN),
    "target_parameters": ("parameters outside Linear layers are not served", _RETRAIN),
    "layer_replication": ("the base's layers are shared and cannot be replicated", _RETRAIN),
    "alora_invocation_tokens": (
        "this variant applies to a part of the text only, which OneSeek does not support",
        _RETRAIN,
    ),
    "use_qalora": (_UNSERVED, _RETRAIN),
    "use_bdlora": (_UNSERVED, _RETRAIN),
    "arrow_config": (_UNSERVED, _RETRAIN),
    "kasa_config": (_SHARED, _RETRAIN),
    "monteclora_config": (_UNSERVED, _RETRAIN),
    "megatron_config": ("Megatron's layers are not served", _RETRAIN),
    "auto_map": (_CODE, _REMOVE),
    "custom_pipelines": (_CODE, _REMOVE),
    "trust_remote_code": (_CODE, _REMOVE),
}
_NO_EFFECT = frozenset(
    {
        "auto_mapping",
        "base_model_name_or_path",
        "corda_config",
        "ensure_weight_tying",
        "eva_config",
        "inference_mode",
        "loftq_config",
        "lora_dropout",
        "lora_ga_config",
        "megatron_core",
        "peft_version",
        "qalora_group_size",
        "revision",
        "runtime_config",
        "task_type",
        "velora_config",
    }
)
"""Fields of adapter_config.json that only say how the adapter was trained, and do not affect its output."""
_READ = frozenset(
    {
        "alpha_pattern",
        "bias",
        "exclude_modules",
        "fan_in_fan_out",
        "init_lora_weights",
        "layers_pattern",
        "layers_to_transform",
        "lora_alpha",
        "peft_type",
        "r",
        "rank_pattern",
        "target_modules",
        "use_rslora",
    }
)
_LAYERS = frozenset(family.layers.rpartition(".")[2] for family in FAMILIES.values())
"""Names of the lists of layers in the supported bases, such as `layers`."""
_KEEPS_BASE = (None, True, False, "gaussian", "eva", "orthogonal")
"""Values of `init_lora_weights` that leave the base's weights unchanged."""


def refuse_variants(path: Path, fields: Mapping[str, Any]) -> None:
    """Raise `AdapterError` if `fields`, read from `path`, describe anything but a plain LoRA."""
    if _MLX in fields and not fields.get("peft_type"):
        reason = "the adapter is in the format of MLX, not of PEFT"
        raise AdapterError(path, reason, _REWRITE, field=_MLX, value=fields[_MLX])
    refuse_known_variants(path, {"peft_type": None, **fields})
    for field, value in fields.items():
        if value and field not in _READ | _NO_EFFECT:
            reason = "the field is unknown and may change the result"
            raise AdapterError(path, reason, _REMOVE, field=field[:64], value=value)


def refuse_known_variants(path: Path, fields: Mapping[str, Any]) -> None:
    """Raise `AdapterError` if `fields` ask for a known variant of LoRA. `fields` may be incomplete or hold
    unknown names.
    """

    def refuse(field: str, reason: str, remedy: str) -> AdapterError:
        return AdapterError(path, reason, remedy, field=field[:64], value=fields.get(field))

    if fields.get("peft_type", "LORA") != "LORA":
        raise refuse(
            "peft_type",
            "OneSeek serves adapters of the type LORA only",
            "Train a LoRA, or convert the adapter to a LoRA with PEFT.",
        )
    if fields.get("bias", "none") != "none":
        raise refuse("bias", _SHARED, "Train the adapter with bias='none'.")
    for field, (reason, remedy) in _MUST_BE_OFF.items():
        if fields.get(field):
            raise refuse(field, reason, remedy)
    if fields.get("task_type") not in (None, "CAUSAL_LM"):
        raise refuse(
            "task_type",
            "OneSeek serves only adapters for causal language models",
            "Train the adapter with task_type='CAUSAL_LM'.",
        )
    pattern: object = fields.get("layers_pattern")
    if pattern not in (None, "", []) and pattern not in (*_LAYERS, *([name] for name in _LAYERS)):
        known = ", ".join(sorted(_LAYERS))
        raise refuse(
            "layers_pattern", f"the layers of the bases that OneSeek serves are called {known}", _REMOVE
        )
    if not _known_library(fields.get("auto_mapping")):
        raise refuse("auto_mapping", _CODE, _REMOVE)
    if fields.get("init_lora_weights", True) not in _KEEPS_BASE:
        convert = "save_pretrained(..., path_initial_model_for_weight_conversion=...)"
        raise refuse(
            "init_lora_weights", _SHARED, f"Convert the adapter to a plain LoRA with PEFT's {convert}."
        )


def _known_library(mapping: object) -> bool:
    """True if `mapping`, the model's class in PEFT's field auto_mapping, is from transformers. PEFT writes
    the field if no task type was given.
    """
    if not isinstance(mapping, dict):
        return not mapping
    library: object = mapping.get("parent_library")
    return isinstance(library, str) and library.startswith("transformers.")
