from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from adapters.lora.families import LLAMA, Sizes
from adapters.lora.flatten import write_plain
from adapters.lora.weights import AdapterWeights, LowRank, ModelShape, read_adapter

SHAPE = ModelShape(LLAMA, Sizes(hidden=32, intermediate=64, heads=4, kv_heads=2, head_dim=8, layers=2))


def update(module: LowRank) -> np.ndarray:
    return module.scaling * (module.b @ module.a)


@pytest.fixture
def mixed() -> AdapterWeights:
    """Ranks and scalings that differ from module to module, as patterns and rsLoRA make them."""
    random = np.random.default_rng(3)

    def module(name: str, rank: int, scaling: float) -> LowRank:
        inside, outside = SHAPE.features(name)
        return LowRank(
            random.standard_normal((rank, inside), np.float32),
            random.standard_normal((outside, rank), np.float32),
            scaling,
        )

    return AdapterWeights(
        LLAMA,
        {
            (0, "q_proj"): module("q_proj", 4, 2.0),
            (0, "down_proj"): module("down_proj", 8, 0.5),
            (1, "v_proj"): module("v_proj", 2, 1.25),
        },
    )


def test_the_plain_folder_adds_the_same_updates(mixed: AdapterWeights, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    write_plain(mixed, folder)
    again = read_adapter(folder, SHAPE)
    assert again.modules.keys() == mixed.modules.keys()
    for key, module in mixed.modules.items():
        assert again.modules[key].scaling == 1.0
        np.testing.assert_allclose(update(again.modules[key]), update(module), rtol=1e-4, atol=1e-5)


def test_every_module_has_one_rank_and_no_pattern(mixed: AdapterWeights, tmp_path: Path) -> None:
    folder = tmp_path / "plain"
    write_plain(mixed, folder)
    config = json.loads((folder / "adapter_config.json").read_text())
    assert config["r"] == config["lora_alpha"] == 8
    assert "rank_pattern" not in config
    assert {module.rank for module in read_adapter(folder, SHAPE).modules.values()} == {8}
