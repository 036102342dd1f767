"""A tiny base, and adapters for it made by hand, so that one thing at a time is wrong."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import save_file

from adapters.lora.families import LLAMA, Sizes
from adapters.lora.weights import ModelShape

CONFIG: Mapping[str, Any] = {
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "head_dim": 8,
    "model_type": "mistral",
    "vocab_size": 64,
}
OUTPUTS = {"q_proj": 32, "v_proj": 16}


@pytest.fixture(scope="session")
def shape() -> ModelShape:
    return ModelShape(LLAMA, Sizes(hidden=32, intermediate=48, heads=4, kv_heads=2, head_dim=8, layers=2))


@pytest.fixture
def make_base() -> Callable[..., Path]:
    """Writes a base of three files to a folder; `tokenizer=False` or `weights=False` leaves that out."""

    def make(folder: Path, *, tokenizer: bool = True, weights: bool = True, seed: int = 0) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text(json.dumps(CONFIG), encoding="utf-8")
        if tokenizer:
            (folder / "tokenizer.json").write_text("{}", encoding="utf-8")
        if weights:
            save_file({"w": np.full((2, 3), seed, np.float32)}, folder / "model.safetensors")
        return folder

    return make


def factors(rank: int = 4) -> dict[str, NDArray[np.float32]]:
    """q_proj and v_proj of two layers, filled with fixed numbers."""
    found: dict[str, NDArray[np.float32]] = {}
    for layer in range(2):
        for module, outputs in OUTPUTS.items():
            name = f"base_model.model.model.layers.{layer}.self_attn.{module}"
            found[f"{name}.lora_A.weight"] = np.linspace(-1, 1, rank * 32, dtype=np.float32).reshape(rank, 32)
            found[f"{name}.lora_B.weight"] = np.linspace(0, 2, outputs * rank, dtype=np.float32).reshape(
                outputs, rank
            )
    return found


@pytest.fixture
def make_adapter(tmp_path: Path) -> Callable[..., Path]:
    """Writes an adapter; `config` and `tensors` change entries, and `manifest` adds oneseek.json."""

    def make(
        folder: Path | str = "adapter",
        *,
        config: Mapping[str, Any] | None = None,
        tensors: Mapping[str, NDArray[Any] | None] | None = None,
        manifest: Mapping[str, Any] | None = None,
        rank: int = 4,
    ) -> Path:
        folder = tmp_path / folder
        folder.mkdir(parents=True)
        fields = {
            "peft_type": "LORA",
            "task_type": "CAUSAL_LM",
            "r": rank,
            "lora_alpha": 8,
            "bias": "none",
            "target_modules": ["q_proj", "v_proj"],
        }
        merged = {**fields, **(config or {})}
        (folder / "adapter_config.json").write_text(json.dumps(merged), encoding="utf-8")
        weights = {**factors(rank), **(tensors or {})}
        save_file(
            {name: value for name, value in weights.items() if value is not None},
            folder / "adapter_model.safetensors",
        )
        if manifest is not None:
            (folder / "oneseek.json").write_text(json.dumps(manifest), encoding="utf-8")
        return folder

    return make
