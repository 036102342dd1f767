"""Both variants of the graph against transformers in float32, over what checkpoints differ in."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from adapters.lora.weights import ModelShape, read_adapter
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.request import AdapterMix
from tests.server.engines.embedded.models import EVERY, VOCABULARY, Reference, write_adapter, write_model
from tests.server.engines.embedded.portable import PortableRunner

TOLERANCE = 1e-4
LINEAR = {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0}
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 5000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
}
CHECKPOINTS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "multi_query": {"num_key_value_heads": 1},
    "multi_head": {"num_key_value_heads": 4},
    "tied": {"tie_word_embeddings": True},
    "own_head_dim": {"head_dim": 32},
    "sharded": {"shard": "60KB"},
    "bfloat16": {"dtype": torch.bfloat16},
    "window": {"sliding_window": 11},
    "llama": {"family": "llama"},
    "llama_linear": {
        "family": "llama",
        "rope_parameters": {"rope_type": "linear", "rope_theta": 1e4, "factor": 2.0},
    },
    "llama3": {"family": "llama", "rope_parameters": LLAMA3},
}


def write(folder: Path, name: str) -> Path:
    return write_model(folder / name, **CHECKPOINTS[name])


def prompt(length: int, seed: int = 1) -> list[int]:
    return np.random.default_rng(seed).integers(0, VOCABULARY, length).tolist()


@pytest.mark.parametrize("name", CHECKPOINTS)
def test_both_variants_agree_with_transformers(tmp_path: Path, name: str) -> None:
    base = write(tmp_path, name)
    if name == "sharded":
        assert len(list(base.glob("model-*.safetensors"))) > 2
    tokens = prompt(48)
    expected = Reference(base).logits(tokens)
    assert expected.std() > 0.1
    runner = CpuRunner(prepare(base, tmp_path / "graphs", name), 1, 64, threads=1)
    first = runner.prefill(0, 0, tokens[:30], (), range(30)).copy()
    np.testing.assert_allclose(first, expected[:30], atol=TOLERANCE, rtol=0)
    np.testing.assert_allclose(
        runner.prefill(0, 30, tokens[30:], (), range(18)), expected[30:], atol=TOLERANCE, rtol=0
    )
    runner.close()
    portable = PortableRunner(prepare(base, tmp_path / "graphs", name, variant=PORTABLE), 1, 64, {})
    for start in range(0, 48, 16):
        found = portable.run(np.array([tokens[start : start + 16]]), [start], [()], range(16))
        np.testing.assert_allclose(found, expected[start : start + 16], atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("dtype", "quantize", "tolerance"),
    [("fp32", "none", TOLERANCE), ("fp16", "none", 0.05), ("fp32", "int8", 0.1), ("fp32", "int4", 0.5)],
)
def test_the_portable_graph_computes_a_mixed_batch(
    tmp_path: Path, dtype: Any, quantize: str, tolerance: float
) -> None:
    # As spread out as an untrained model, where quantised; a step of four bits is large.
    base = write_model(tmp_path / "base", initializer_range=0.15 if quantize == "none" else 0.06)
    folders = {
        "en": write_adapter(tmp_path / "en", base, 4, ("q_proj", "v_proj"), 1),
        "sv": write_adapter(tmp_path / "sv", base, 8, EVERY, 2),
    }
    weights = {name: read_adapter(folder, ModelShape.read(base)) for name, folder in folders.items()}
    graph = prepare(base, tmp_path / "graphs", "base", quantize, variant=PORTABLE, dtype=dtype)
    mixes: list[AdapterMix] = [(), (("en", 1.0),), (("sv", 1.0),), (("en", 0.25), ("sv", 0.75))]
    runner = PortableRunner(graph, len(mixes), 32, weights)
    reference = Reference(base, folders)
    sequences = [prompt(20, seed) for seed in range(len(mixes))]
    expected = [
        reference.logits(tokens, adapter_mix) for tokens, adapter_mix in zip(sequences, mixes, strict=True)
    ]
    tokens = np.array(sequences)
    found = runner.run(tokens[:, :19], [0] * 4, mixes, [18, 37, 56, 75])
    np.testing.assert_allclose(found, [logits[18] for logits in expected], atol=tolerance, rtol=0)
    found = runner.run(tokens[:, 19:], [19] * 4, mixes, range(4))
    np.testing.assert_allclose(found, [logits[19] for logits in expected], atol=tolerance, rtol=0)
