from __future__ import annotations

import json
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import save_file

from adapters.errors import BaseModelError
from server.engines.embedded.model.checkpoint import Checkpoint, CheckpointError, Matrix


@pytest.mark.parametrize("dtype", [np.float32, np.float16, ml_dtypes.bfloat16])
def test_tensors_come_as_float32(tmp_path: Path, dtype: type) -> None:
    value = np.arange(12).reshape(3, 4).astype(dtype)
    save_file({"a": value, "b": value[0].copy()}, tmp_path / "model.safetensors")
    with Checkpoint(tmp_path) as checkpoint:
        assert checkpoint.read("b").dtype == np.float32
        np.testing.assert_array_equal(checkpoint.read("b"), np.arange(4))
        np.testing.assert_array_equal(
            np.concatenate([b for _, b in checkpoint.blocks(Matrix("a", 3, 4))]), value
        )


def test_blocks_are_bounded_and_in_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engines.embedded.model.checkpoint.BLOCK_BYTES", 40)
    value = np.arange(28, dtype=np.float32).reshape(7, 4)
    save_file({"a": value}, tmp_path / "model.safetensors")
    blocks = list(Checkpoint(tmp_path).blocks(Matrix("a", 7, 4)))
    assert [start for start, _ in blocks] == [0, 2, 4, 6]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), value)


def test_a_matrix_that_is_stored_as_inputs_by_outputs_is_read_by_outputs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engines.embedded.model.checkpoint.BLOCK_BYTES", 40)
    value = np.arange(28, dtype=np.float32).reshape(7, 4)
    save_file({"a": np.ascontiguousarray(value.T)}, tmp_path / "model.safetensors")
    matrix = Matrix("a", 7, 4, transposed=True)
    assert matrix.source == ("a", (4, 7))
    blocks = list(Checkpoint(tmp_path).blocks(matrix))
    assert [start for start, _ in blocks] == [0, 2, 4, 6]
    np.testing.assert_array_equal(np.concatenate([block for _, block in blocks]), value)


def test_shards_are_found_through_the_index(tmp_path: Path) -> None:
    for name in "ab":
        save_file({name: np.full((2, 2), ord(name), np.float32)}, tmp_path / f"{name}.safetensors")
    index = {"weight_map": {name: f"{name}.safetensors" for name in "ab"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    checkpoint = Checkpoint(tmp_path)
    assert checkpoint.read("b")[0, 0] == ord("b")
    assert "c" not in checkpoint


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    with pytest.raises(BaseModelError, match=r"\.safetensors"):
        Checkpoint(tmp_path)
    save_file({"a": np.zeros((2, 3), np.float32), "i": np.zeros(2, np.int64)}, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    with pytest.raises(CheckpointError, match="tensor b"):
        checkpoint.read("b")
    with pytest.raises(CheckpointError, match=r"\[2, 3\].*\[3, 2\]"):
        checkpoint.check("a", (3, 2))
    with pytest.raises(CheckpointError, match="I64"):
        checkpoint.check("i", (2,))


@pytest.mark.parametrize("file", ["missing.safetensors", "../outside.safetensors"])
def test_an_index_cannot_name_what_is_not_there(tmp_path: Path, file: str) -> None:
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "outside.safetensors")
    folder = tmp_path / "base"
    folder.mkdir()
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"a": file}}))
    with pytest.raises(BaseModelError, match="safetensors"):
        Checkpoint(folder)


def test_tensors_are_found_in_the_files_even_if_the_index_errs(tmp_path: Path) -> None:
    """transformers reads whole files; of an index it takes their names alone."""
    save_file({"a": np.zeros(2, np.float32)}, tmp_path / "one.safetensors")
    save_file({"b": np.ones(2, np.float32)}, tmp_path / "two.safetensors")
    index = {"weight_map": {"a": "two.safetensors", "b": "one.safetensors", "gone": "one.safetensors"}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    assert Checkpoint(tmp_path).names == {"a", "b"}
    assert Checkpoint(tmp_path).read("b")[0] == 1


@pytest.mark.parametrize("block", [64 << 20, 24])
def test_tensors_are_compared_by_their_numbers(
    block: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engines.embedded.model.checkpoint.BLOCK_BYTES", block)
    value = np.arange(12, dtype=np.float32).reshape(4, 3)
    other = value.copy()
    other[3, 2] = 0
    tensors = {"a": value, "b": value.astype(ml_dtypes.bfloat16), "c": other, "d": value[:3].copy()}
    save_file(tensors, tmp_path / "model.safetensors")
    checkpoint = Checkpoint(tmp_path)
    assert [checkpoint.equal("a", name) for name in "abcd"] == [True, True, False, False]


def test_a_torn_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "model.safetensors").write_bytes(b"\x10\x00")
    with pytest.raises(CheckpointError, match=r"model\.safetensors"):
        Checkpoint(tmp_path)
