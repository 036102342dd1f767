"""Updates that float32 rounds away or that overflow are refused; what is between is served."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.bases import SHIPPED
from adapters.errors import AdapterError
from adapters.lora.effect import LARGEST, SMALLEST, USUAL_WEIGHT, typical_weight, update_ratio
from adapters.lora.shape_check import ModelShape
from adapters.lora.weights import read_adapter

BASE = SHIPPED / "base"


@pytest.fixture(scope="module")
def shape() -> ModelShape:
    return ModelShape.read(BASE)


@pytest.fixture
def scaled(tmp_path: Path) -> Callable[[float, str], Path]:
    """The shipped Swedish adapter with one of its factors multiplied."""

    def make(factor: float, part: str) -> Path:
        source = SHIPPED / "oneseek-mini-sv"
        (tmp_path / "adapter_config.json").write_bytes((source / "adapter_config.json").read_bytes())
        tensors = load_file(source / "adapter_model.safetensors")
        changed = {
            name: value.astype(np.float32) * np.float32(factor if part in name else 1)
            for name, value in tensors.items()
        }
        save_file(changed, tmp_path / "adapter_model.safetensors")
        return tmp_path

    return make


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
@pytest.mark.parametrize("factor", [1e-3, 1e-5, 1.0, 30.0])
def test_a_size_that_shows_is_served(
    scaled: Callable[[float, str], Path], shape: ModelShape, factor: float, part: str
) -> None:
    read_adapter(scaled(factor, part), shape)


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
@pytest.mark.parametrize("factor", [1e-8, 1e-12, 1e-30, 1e-44])
def test_a_size_that_rounding_takes_is_no_effect(
    scaled: Callable[[float, str], Path], shape: ModelShape, factor: float, part: str
) -> None:
    with pytest.raises(AdapterError, match="lora_alpha"):
        read_adapter(scaled(factor, part), shape)


@pytest.mark.parametrize("part", ["lora_A", "lora_B"])
@pytest.mark.parametrize("factor", [1e6, 1e12, 1e30])
def test_a_size_that_drowns_the_base_is_refused(
    scaled: Callable[[float, str], Path], shape: ModelShape, factor: float, part: str
) -> None:
    with pytest.raises(AdapterError, match=rf"float16|\b{LARGEST:g}\b"):
        read_adapter(scaled(factor, part), shape)


def test_each_bound_holds_by_itself(scaled: Callable[[float, str], Path], shape: ModelShape) -> None:
    """A product that drowns the base, of numbers that float16 holds, and the reverse."""
    with pytest.raises(AdapterError, match=rf"\b{LARGEST:g}\b"):
        read_adapter(scaled(2e4, "lora_B"), shape)
    folder = scaled(1e6, "lora_A")
    tensors = load_file(folder / "adapter_model.safetensors")
    kept = {name: value * np.float32(1e-6 if "lora_B" in name else 1) for name, value in tensors.items()}
    save_file(kept, folder / "adapter_model.safetensors")
    with pytest.raises(AdapterError, match="float16"):
        read_adapter(folder, shape)


def test_below_the_bound_float32_keeps_the_base() -> None:
    """The bound is that of the arithmetic: a merged weight is bit for bit the base's, and above it is not."""
    rng = np.random.default_rng(3)
    weight = np.full((64, 64), USUAL_WEIGHT, np.float32)
    a, b = np.ones((1, 64), np.float32), np.ones((64, 1), np.float32)
    ones = update_ratio(a, b, 1.0, USUAL_WEIGHT)
    for part, changes in ((0.4, False), (4.0, True)):
        scaling = part * SMALLEST / ones
        assert (update_ratio(a, b, scaling, USUAL_WEIGHT) >= SMALLEST) is changes
        merged = weight + np.float32(scaling) * (b @ a)
        assert bool((merged != weight).any()) is changes
    assert update_ratio(rng.standard_normal((4, 64), np.float32), b @ np.ones((1, 4), np.float32), 0, 1) == 0
    assert update_ratio(a * 1e30, b, 1.0, USUAL_WEIGHT) > LARGEST


def test_the_weight_of_a_base_is_sampled(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    weights = {
        "model.layers.0.self_attn.q_proj.weight": rng.normal(0, 0.5, (64, 64)).astype(np.float32),
        "model.layers.0.self_attn.v_proj.weight": rng.normal(0, 0.1, (64, 64)).astype(np.float32),
        "model.embed_tokens.weight": np.full((64, 64), 1e-9, np.float32),
    }
    save_file(weights, tmp_path / "model.safetensors")
    modules = ("self_attn.q_proj", "self_attn.v_proj")
    assert typical_weight(tmp_path, modules) == pytest.approx(0.1, rel=0.1)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    assert typical_weight(tmp_path, modules) == USUAL_WEIGHT
    assert typical_weight(tmp_path / "nowhere", modules) == USUAL_WEIGHT
