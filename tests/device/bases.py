"""The base and adapters of the engines' contract, made without torch, which is not beside the device."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

from bench.random_model import INITIALIZER_RANGE, DecoderShape, write_adapter, write_model

SHAPE = DecoderShape(64, 3, 2, 1, 32, 128, 512, 256)
"""That of `tiny_base` in tests/conftest.py."""
SPREAD = 0.2
"""Standard deviation of its weights: then the base says one thing rather than another."""


def write_tiny_base(folder: Path) -> None:
    """Config and weights; the tokenizer is the caller's."""
    write_model(folder, SHAPE, dtype="float32")
    (path,) = folder.glob("*.safetensors")
    weights = load_file(path)
    for name, value in weights.items():
        weights[name] = value if value.ndim == 1 else value * np.float32(SPREAD / INITIALIZER_RANGE)
    save_file(weights, path, metadata={"format": "pt"})


def write_tiny_adapter(folder: Path, seed: int, rank: int, targets: Sequence[str], scale: float) -> None:
    """An adapter in PEFT layout, both of its matrices of standard deviation `scale`."""
    write_adapter(folder, SHAPE, rank, targets, seed)
    path, rng = folder / "adapter_model.safetensors", np.random.default_rng(seed)
    drawn = {
        name: rng.standard_normal(value.shape, dtype=np.float32) * np.float32(scale)
        for name, value in load_file(path).items()
    }
    save_file(drawn, path, metadata={"format": "pt"})
