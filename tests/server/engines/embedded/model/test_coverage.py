"""A checkpoint with tensors that nothing reads is refused, by their names."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from safetensors.numpy import load_file, save_file

from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.config import UnsupportedModelError
from tests.server.engines.embedded.models import write_model

EMBEDDING, HEAD = "model.embed_tokens.weight", "lm_head.weight"


def changed(folder: Path, tensors: Mapping[str, NDArray[Any]], family: str, *, tied: bool = False) -> Path:
    write_model(folder, family, tie_word_embeddings=tied)
    file = folder / "model.safetensors"
    save_file({**load_file(file), **tensors}, file, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("family", ["mistral", "llama"])
@pytest.mark.parametrize(
    "name",
    [
        "model.layers.1.self_attn.q_proj.bias",
        "model.layers.0.self_attn.q_norm.weight",
        "model.layers.0.mlp.up_proj.bias",
        "model.layers.2.self_attn.q_proj.weight",
        "model.norm.bias",
        "score.weight",
        "model.layers.0.self_attn.bias",
    ],
)
def test_what_nothing_reads_is_refused_by_name(family: str, name: str, tmp_path: Path) -> None:
    base = changed(tmp_path / "base", {name: np.ones(64, np.float32)}, family)
    with pytest.raises(UnsupportedModelError, match=name):
        prepare(base, tmp_path / "graphs", "sha256:0")
    assert not list(tmp_path.glob("graphs/*/*"))


@pytest.mark.parametrize("family", ["mistral", "llama"])
def test_buffers_that_the_decoder_computes_are_passed_over(family: str, tmp_path: Path) -> None:
    places = ("model.layers.0.self_attn", "model.layers.1.self_attn", "model")
    buffers = {f"{place}.rotary_emb.inv_freq": np.ones(8, np.float32) for place in places}
    prepare(changed(tmp_path / "base", buffers, family), tmp_path / "graphs", "sha256:0")


@pytest.mark.parametrize("quantize", ["none", "int4"])
def test_a_tied_head_may_be_stored_if_it_is_the_embedding(quantize: str, tmp_path: Path) -> None:
    base = changed(tmp_path / "base", {}, "mistral", tied=True)
    file = base / "model.safetensors"
    tensors = load_file(file)
    save_file({**tensors, HEAD: tensors[EMBEDDING]}, file)
    prepare(base, tmp_path / "graphs", "sha256:0", quantize)
    other = tensors[EMBEDDING].copy()
    other[5, 5] += 1
    save_file({**tensors, HEAD: other}, file)
    with pytest.raises(UnsupportedModelError, match="tie_word_embeddings"):
        prepare(base, tmp_path / "graphs", "sha256:1", quantize)
