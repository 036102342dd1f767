"""How far adapters are apart, against the whole matrices."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.lora.compare import compare_adapters
from adapters.lora.manifest import read_manifest
from adapters.lora.weights import LowRank, ModelShape, read_adapter

Make = Callable[..., Path]


def full(module: LowRank) -> NDArray[np.float64]:
    return module.scaling * (module.b.astype(np.float64) @ module.a.astype(np.float64))


def test_norms_and_cosines_are_those_of_the_updates(
    tmp_path: Path, make_adapter: Make, shape: ModelShape
) -> None:
    rng = np.random.default_rng(3)
    q = "base_model.model.model.layers.{}.self_attn.{}.lora_{}.weight"

    def tensors(rank: int) -> dict[str, NDArray[np.float32]]:
        return {
            q.format(layer, module, half): rng.normal(size=size).astype(np.float32)
            for layer in range(2)
            for module, out in (("q_proj", 32), ("v_proj", 16))
            for half, size in (("A", (rank, 32)), ("B", (out, rank)))
        }

    first = make_adapter("first", tensors=tensors(4))
    second = make_adapter(
        "second", tensors=tensors(2), rank=2, config={"use_rslora": True, "lora_dropout": 0.1}
    )
    ours, theirs = (read_adapter(folder, shape) for folder in (first, second))
    found = compare_adapters(read_manifest(first), read_manifest(second), (ours, theirs))
    assert found.config == {"r": (4, 2), "use_rslora": (None, True), "lora_dropout": (None, 0.1)}
    all_ours, all_theirs = [], []
    for row, (key, module) in zip(found.modules, sorted(ours.modules.items()), strict=True):
        a, b = full(module), full(theirs.modules[key])
        all_ours.append(a.ravel())
        all_theirs.append(b.ravel())
        assert row.first == pytest.approx(np.linalg.norm(a))
        assert row.second == pytest.approx(np.linalg.norm(b))
        assert row.cosine == pytest.approx(np.sum(a * b) / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-9)
    a, b = np.concatenate(all_ours), np.concatenate(all_theirs)
    assert found.whole.cosine == pytest.approx(
        float(a @ b) / math.sqrt(float(a @ a) * float(b @ b)), abs=1e-9
    )


def test_an_adapter_is_the_same_as_itself_and_apart_from_other_modules(
    make_adapter: Make, shape: ModelShape
) -> None:
    whole = make_adapter("whole")
    half = make_adapter(
        "half",
        config={"target_modules": ["v_proj"]},
        tensors={
            f"base_model.model.model.layers.{layer}.self_attn.q_proj.lora_{half}.weight": None
            for layer in range(2)
            for half in "AB"
        },
    )
    manifest, other = read_manifest(whole), read_manifest(half)
    weights, less = read_adapter(whole, shape), read_adapter(half, shape)
    same = compare_adapters(manifest, manifest, (weights, weights))
    assert same.config == {}
    assert same.whole.cosine == pytest.approx(1)
    apart = compare_adapters(manifest, other, (weights, less))
    assert [(row.second == 0, row.cosine is None) for row in apart.modules] == [
        (True, True),
        (False, False),
    ] * 2
    assert apart.config == {"target_modules": (["q_proj", "v_proj"], ["v_proj"])}
