"""Random checkpoints of any shape that the engine runs, and adapters for them, written without torch."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bench.random_model import DecoderShape, write_adapter, write_model

LINEAR: dict[str, Any] = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
LLAMA3: dict[str, Any] = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
EVERY = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
VOCABULARY = 320


@dataclass(frozen=True, slots=True, kw_only=True)
class Randoms:
    """What a checkpoint is like; hidden size and intermediate size follow from the heads."""

    family: str = "mistral"
    layers: int = 2
    kv_heads: int = 2
    ratio: int = 2
    """Query heads for each KV head."""
    head_dim: int = 16
    tied: bool = False
    window: int | None = None
    rope: dict[str, Any] | None = None
    seed: int = 0

    @property
    def shape(self) -> DecoderShape:
        """As `config.json` names it."""
        heads = self.kv_heads * self.ratio
        return DecoderShape(64, self.layers, heads, self.kv_heads, self.head_dim, 96, VOCABULARY, 128)


def write_random(folder: Path, like: Randoms) -> Path:
    """Write the checkpoint."""
    write_model(folder, like.shape, like.seed, tied=like.tied)
    path = folder / "config.json"
    config: dict[str, Any] = json.loads(path.read_text())
    config["architectures"] = [f"{like.family.capitalize()}ForCausalLM"]
    config |= {"model_type": like.family, "sliding_window": like.window}
    if like.rope is not None:
        del config["rope_theta"]
        config["rope_parameters"] = like.rope
    path.write_text(json.dumps(config))
    return folder


def write_random_adapter(folder: Path, like: Randoms, rank: int, targets: Sequence[str], seed: int) -> Path:
    """Write an adapter for it."""
    write_adapter(folder, like.shape, rank, targets, seed)
    return folder
