"""The base and the adapters for servers that a benchmark starts: the small ones that ship with OneSeek, and
random adapters of the same shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.random_model import DecoderShape, write_adapter

WEIGHTS = Path(__file__).parents[2] / "adapters" / "mini" / "weights"
"""Folder of the small bilingual base and the two adapters that ship with OneSeek."""
BASE = WEIGHTS / "base"
MINI_ADAPTERS = {name: WEIGHTS / name for name in ("oneseek-mini-en", "oneseek-mini-sv")}
TARGETS = ("q_proj", "v_proj")
RANK = 8


def shape_of(base: Path) -> DecoderShape:
    """Return the sizes of a Mistral- or Llama-like checkpoint. Raises `ValueError` if its config.json lacks a
    size.
    """
    config: Mapping[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    known = dict(config)
    known.setdefault("head_dim", config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1)))
    missing = [field.name for field in fields(DecoderShape) if field.name not in known]
    if missing:
        raise ValueError(
            f"{base}/config.json lacks {missing[0]!r}, which random adapters need; use a Mistral- or "
            "Llama-like base"
        )
    return DecoderShape(**{field.name: known[field.name] for field in fields(DecoderShape)})


def random_adapters(folder: Path, base: Path, count: int, prefix: str = "zipf") -> dict[str, Path]:
    """Make `count` random adapters for `base` in `folder`, unless they exist. Return a map from each
    adapter's name to its folder; in a benchmark with Zipf popularity, the first is the most popular.
    """
    shape, made = shape_of(base), {}
    for number in range(1, count + 1):
        name = f"{prefix}-{number:04}"
        made[name] = folder / name
        if not (folder / name / "adapter_config.json").exists():
            write_adapter(folder / name, shape, RANK, TARGETS, seed=number)
    return made
