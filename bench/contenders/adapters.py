"""Bases and adapters on disk for servers that the suite starts: the shipped ones, and random ones of their
shape.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from bench.random_model import DecoderShape, write_adapter

WEIGHTS = Path(__file__).parents[2] / "adapters" / "mini" / "weights"
"""Finds the small bilingual base and the two adapters that ship with OneSeek, without importing its code."""
BASE = WEIGHTS / "base"
MINI_ADAPTERS = {name: WEIGHTS / name for name in ("oneseek-mini-en", "oneseek-mini-sv")}
TARGETS = ("q_proj", "v_proj")
RANK = 8


def shape_of(base: Path) -> DecoderShape:
    """The sizes of a Mistral- or Llama-family checkpoint. Raises `ValueError` if its config lacks one."""
    config: Mapping[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    known = dict(config)
    known.setdefault("head_dim", config.get("hidden_size", 0) // max(1, config.get("num_attention_heads", 1)))
    missing = [field.name for field in fields(DecoderShape) if field.name not in known]
    if missing:
        raise ValueError(
            f"{base}/config.json: {missing[0]!r} is missing; random adapters need a Mistral-like base"
        )
    return DecoderShape(**{field.name: known[field.name] for field in fields(DecoderShape)})


def random_adapters(folder: Path, base: Path, count: int, prefix: str = "zipf") -> dict[str, Path]:
    """Make `count` random adapters for `base` below `folder`, once. Return each name's folder, most popular
    first.
    """
    shape, made = shape_of(base), {}
    for number in range(1, count + 1):
        name = f"{prefix}-{number:04}"
        made[name] = folder / name
        if not (folder / name / "adapter_config.json").exists():
            write_adapter(folder / name, shape, RANK, TARGETS, seed=number)
    return made
