"""What a merge compares before its model is used: every number, and the logits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from safetensors.numpy import save_file

from adapters.errors import BaseModelError
from adapters.lora.weights import LowRank
from adapters.merging import logits
from adapters.merging.logits import compare_logits
from adapters.merging.merge import MergeError, WrongModelError
from adapters.merging.shards import Shard, check_merged, write_merged
from tests.adapters.merging.merges import Quiet, job, merged


def test_a_model_that_fails_its_check_is_removed(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    work = job(base := make_base(), make_lora(base), tmp_path / "out")

    def unable(folder: Path) -> Mapping[str, Any]:
        raise MergeError(folder, "cannot be compared", "")

    def off(folder: Path) -> Mapping[str, Any]:
        raise WrongModelError(folder, "is off", "")

    with pytest.raises(MergeError, match="cannot be compared"):
        work.run(Quiet(), unable)
    assert list((tmp_path / ".out.merging").glob("*.safetensors"))
    assert not (tmp_path / "out").exists()
    with pytest.raises(MergeError, match="is off"):
        work.run(Quiet(), off)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_one_unit_in_the_last_place_of_one_number_is_noticed(dtype: str, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    kind = np.dtype({"bfloat16": ml_dtypes.bfloat16}.get(dtype, dtype))
    weights = rng.standard_normal((300, 40), np.float32).astype(kind)
    save_file({"kept": weights[:9].copy(), "merged": weights}, tmp_path / "base.safetensors")
    update = LowRank(rng.standard_normal((4, 40), np.float32), rng.standard_normal((300, 4), np.float32), 0.5)
    source, target = Shard.read(tmp_path / "base.safetensors"), tmp_path / "out.safetensors"
    updates = {"merged": update}
    write_merged(source, target, updates, lambda count: None)
    whole = target.read_bytes()
    verdict = check_merged(source, target, updates, lambda count: None)
    assert (verdict.merged, verdict.kept) == (1, 1)
    assert 0.5 < verdict.worst <= 1 or dtype == "float32"
    entry = {entry.name: entry for entry in source.entries}
    # For float32 the bound leaves room for the sum's own error, so a greater fault stands in.
    step = 2 if dtype == "float32" else 0
    for name in ("merged", "kept"):
        for index in (0, 199):
            data = bytearray(whole)
            data[entry[name].start + index * kind.itemsize + step] ^= 1
            target.write_bytes(bytes(data))
            with pytest.raises(BaseModelError, match=name):
                check_merged(source, target, updates, lambda count: None)
    target.write_bytes(whole.replace(b'"kept"', b'"sept"'))
    with pytest.raises(BaseModelError, match="header"):
        check_merged(source, target, updates, lambda count: None)


def test_the_logits_are_compared_in_a_process_apart_or_it_is_said_why_not(
    make_base: Callable[..., Path],
    make_lora: Callable[..., Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    base = make_base(dtype=torch.bfloat16)
    lora = make_lora(base)
    merged(base, lora, tmp_path / "out")
    found = compare_logits(base, lora, tmp_path / "out", "logits")
    assert found["computed_in"] == "float32"
    assert found["difference"] < 0.02 < found["effect"]
    with pytest.raises(WrongModelError, match=r"\b5\.0%"):
        compare_logits(base, make_lora(base, seed=2), tmp_path / "out", "auto")
    assert compare_logits(base, lora, tmp_path / "out", "tensors") == {"skipped": "not asked for"}
    monkeypatch.setattr(logits, "NEEDED", ("torch", "no_such_module"))
    skipped = {"skipped": "no_such_module is not installed: pip install 'oneseek[train]'"}
    assert compare_logits(base, lora, tmp_path / "out", "auto") == skipped
    with pytest.raises(MergeError, match=r"no_such_module.*--check tensors"):
        compare_logits(base, lora, tmp_path / "out", "logits")


def test_an_adapter_that_rounding_loses_is_refused(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base(dtype=torch.bfloat16)
    lora = make_lora(base, scale=1e-3)
    merged(base, lora, tmp_path / "out")
    with pytest.raises(WrongModelError, match=r"\bbfloat16\b.*%.*%"):
        compare_logits(base, lora, tmp_path / "out", "auto")
