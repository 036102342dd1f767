"""The portable graph against the fused one: the same base, adapters and tokens."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from adapters.mini.shipped import ADAPTERS, BASE
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.protocol import DecodeRow
from server.request import AdapterMix
from server.text.tokenizer import Tokenizer
from tests.server.engines.embedded.portable import PortableRunner
from tests.server.engines.embedded.randoms import (
    EVERY,
    LINEAR,
    LLAMA3,
    VOCABULARY,
    Randoms,
    write_random,
    write_random_adapter,
)

FP32 = 4e-6
"""Of the largest logit, where that is above 1: both variants round in their own order."""
ROWS, LENGTH, STEPS = 4, 24, 3
VOICES: list[AdapterMix] = [(), (("en", 1.0),), (("sv", 1.0),), (("en", 0.5), ("sv", 0.5))]

Logits = NDArray[np.float32]


def by_gqa(
    base: Path, scratch: Path, quantize: Quantize, tokens: NDArray[np.int64], loras: dict[str, AdapterWeights]
) -> Logits:
    """[rows x prompt, then rows of each step; vocabulary]."""
    runner = CpuRunner(prepare(base, scratch, "base", quantize), ROWS, LENGTH + STEPS, threads=1)
    for name, weights in loras.items():
        runner.load(name, weights)
    found: list[Logits] = []
    for row, adapter_mix in enumerate(VOICES):
        prompt = tokens[row, :LENGTH].tolist()
        found.append(runner.prefill(row, 0, prompt, adapter_mix, range(LENGTH)).copy())
    for at in range(LENGTH, LENGTH + STEPS):
        rows = [DecodeRow(row, int(tokens[row, at]), at, VOICES[row]) for row in range(ROWS)]
        found.append(runner.decode(rows).copy())
    runner.close()
    return np.concatenate(found)


def by_portable(
    base: Path,
    scratch: Path,
    quantize: Quantize,
    tokens: NDArray[np.int64],
    loras: dict[str, AdapterWeights],
    dtype: Any = "fp32",
    **options: Any,
) -> Logits:
    graph = prepare(base, scratch, "base", quantize, variant=PORTABLE, dtype=dtype)
    runner = PortableRunner(graph, ROWS, LENGTH + STEPS, loras, **options)
    found = [runner.run(tokens[:, :LENGTH], [0] * ROWS, VOICES, range(ROWS * LENGTH))]
    steps = range(LENGTH, LENGTH + STEPS)
    found += [runner.run(tokens[:, at : at + 1], [at] * ROWS, VOICES, range(ROWS)) for at in steps]
    return np.concatenate(found)


def distance(one: Logits, other: Logits) -> float:
    """Largest difference, in units of the largest logit where that is above 1."""
    return float(np.abs(one - other).max() / max(1.0, np.abs(other).max()))


CHECKPOINTS = st.builds(
    Randoms,
    family=st.sampled_from(["mistral", "llama"]),
    layers=st.integers(1, 3),
    kv_heads=st.sampled_from([1, 2, 3]),
    ratio=st.sampled_from([1, 2, 4]),
    head_dim=st.sampled_from([16, 32]),
    tied=st.booleans(),
    rope=st.sampled_from([None, LINEAR, LLAMA3]),
    window=st.sampled_from([None, 5, 17]),
    seed=st.integers(0, 1000),
)


@settings(max_examples=10, deadline=None)
@given(like=CHECKPOINTS, rank=st.integers(1, 9))
def test_both_variants_compute_the_same_whatever_the_checkpoint(like: Randoms, rank: int) -> None:
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        base = write_random(folder / "base", like)
        shape = ModelShape.read(base)
        adapters = {"en": (rank, EVERY[:4]), "sv": (2 * rank, EVERY)}
        loras = {
            name: read_adapter(write_random_adapter(folder / name, like, size, targets, size), shape)
            for name, (size, targets) in adapters.items()
        }
        tokens = np.random.default_rng(like.seed).integers(0, VOCABULARY, (ROWS, LENGTH + STEPS))
        expected = by_gqa(base, folder, "none", tokens, loras)
        assert expected.std() > 0.05
        assert distance(by_portable(base, folder, "none", tokens, loras), expected) < FP32
        loras = {"en": loras["sv"], "sv": loras["en"]}
        assert distance(by_portable(base, folder, "none", tokens, loras), expected) > 100 * FP32


@pytest.fixture(scope="module")
def mini_tokens() -> NDArray[np.int64]:
    texts = (
        "Who are you, and what can you do for me? Tell me about the sea and the ships that cross it, please.",
        "Vem är du, och vad kan du göra för mig? Berätta något om havet och om de skepp som far över det.",
    )
    tokenizer = Tokenizer.load(BASE)
    rows = [tokenizer.encode(texts[row % 2])[: LENGTH + STEPS] for row in range(ROWS)]
    return np.array(rows, dtype=np.int64)


@pytest.fixture(scope="module")
def mini_loras() -> dict[str, AdapterWeights]:
    shape = ModelShape.read(BASE)
    return {folder.name[-2:]: read_adapter(folder, shape) for folder in ADAPTERS}


@pytest.mark.parametrize(
    ("quantize", "dtype", "largest"),
    [
        ("none", "fp32", FP32),
        ("none", "fp16", 0.002),
        # The CPU's own graph has 8-bit activations where it is quantised: there lies nearly all of the gap.
        ("int8", "fp32", 0.06),
        ("int4", "fp32", 0.03),
        ("int4", "fp16", 0.03),
    ],
)
def test_both_variants_agree_on_the_base_that_ships(
    tmp_path: Path,
    mini_tokens: NDArray[np.int64],
    mini_loras: dict[str, AdapterWeights],
    quantize: Quantize,
    dtype: str,
    largest: float,
) -> None:
    expected = by_gqa(BASE, tmp_path, quantize, mini_tokens, mini_loras)
    assert expected.std() > 1
    found = by_portable(BASE, tmp_path, quantize, mini_tokens, mini_loras, dtype)
    assert distance(found, expected) < largest


@pytest.mark.parametrize("dtype", ["fp32", "fp16"])
def test_memory_that_is_written_in_place_holds_the_same(
    tmp_path: Path, mini_tokens: NDArray[np.int64], mini_loras: dict[str, AdapterWeights], dtype: str
) -> None:
    apart, in_place = (
        by_portable(BASE, tmp_path, "none", mini_tokens, mini_loras, dtype, aliased=aliased)
        for aliased in (False, True)
    )
    np.testing.assert_array_equal(apart, in_place)
