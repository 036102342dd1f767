"""Finds the model family of a base model by the `model_type` in its Hugging Face `config.json`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import cast

from server.engines.embedded.model.config import ConfigFields, Family, ModelConfig, UnsupportedModelError
from server.engines.embedded.model.families.gpt2 import GPT2
from server.engines.embedded.model.families.llama import LLAMA
from server.engines.embedded.model.families.qwen import QWEN2, QWEN3

FAMILIES: dict[str, Family] = {
    kind: family for family in (LLAMA, QWEN2, QWEN3, GPT2) for kind in family.architectures
}
"""Maps each `model_type` in config.json to its model family. Lists every architecture that the embedded
engine runs.
"""


def read_model_config(model_dir: Path) -> ModelConfig:
    """Read a base model's `config.json`.

    Raises `UnsupportedModelError` if the embedded engine does not support the model.
    """
    path = model_dir / "config.json"
    try:
        raw: object = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UnsupportedModelError(
            f"the base model's folder {model_dir.name} has no config.json; give the folder of a Hugging Face "
            "model"
        ) from None
    except ValueError as error:
        raise UnsupportedModelError(
            f"config.json of the base model {model_dir.name} is not valid JSON: {error}; download the model "
            "again"
        ) from None
    if not isinstance(raw, dict):
        raise UnsupportedModelError(
            f"config.json of the base model {model_dir.name} is not a JSON object; download the model again"
        )
    return parse_config(cast("dict[str, object]", raw))


def parse_config(raw: ConfigFields) -> ModelConfig:
    """Read a base model's config from parsed JSON.

    Raises `UnsupportedModelError` if the embedded engine does not support the model.
    """
    if raw.get("auto_map"):
        raise UnsupportedModelError(
            "config.json has auto_map: the model needs code from its checkpoint, which OneSeek never runs; "
            "use a base model of a supported architecture"
        )
    kind = raw.get("model_type")
    family = FAMILIES.get(kind) if isinstance(kind, str) else None
    if family is None or not isinstance(kind, str):
        raise UnsupportedModelError(
            f"config.json: model_type {kind!r} is not supported by the embedded engine; supported: "
            f"{', '.join(FAMILIES)}"
        )
    architecture = family.architectures[kind]
    architectures = raw.get("architectures") or [architecture]
    if architectures != [architecture]:
        raise UnsupportedModelError(
            f"config.json: architectures {architectures!r} is not supported for a {kind} model; use another "
            "base model"
        )
    if raw.get("is_causal") is False:
        raise UnsupportedModelError(
            f"config.json: is_causal {raw['is_causal']!r} is not supported: tokens would attend to later "
            "tokens, as in an embedding model; use a base model that generates text"
        )
    if raw.get("quantization_config"):
        raise UnsupportedModelError(
            "config.json has quantization_config: the checkpoint is quantized already, which is not "
            "supported; use the unquantized checkpoint, with --quantize"
        )
    return family.read(raw)
