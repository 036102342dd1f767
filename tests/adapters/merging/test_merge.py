"""A merged model is base + adapter, as PEFT merges it, and what cannot be merged is refused."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.errors import BaseModelError
from adapters.lora.digest import base_digest
from adapters.lora.manifest import read_manifest
from adapters.merging.logits_child import logits_distance
from adapters.merging.merge import MERGE_FILE, MergeError
from tests.adapters.merging.merges import EVERY, Quiet, job, merged, unchecked

PLAIN: Mapping[str, Any] = {}
RICH: Mapping[str, Any] = {
    "r": 8,
    "target_modules": EVERY,
    "use_rslora": True,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"down_proj": 32},
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


def tensors(folder: Path) -> dict[str, NDArray[Any]]:
    return {name: value for path in folder.glob("*.safetensors") for name, value in load_file(path).items()}


def peft_merged(base: Path, lora: Path, dtype: torch.dtype) -> dict[str, torch.Tensor]:
    """What PEFT makes of it, computed in `dtype`."""
    model = AutoModelForCausalLM.from_pretrained(base, dtype=dtype)
    return dict(PeftModel.from_pretrained(model, str(lora)).merge_and_unload().state_dict())  # pyright: ignore[reportCallIssue]


@pytest.mark.parametrize("lora", [PLAIN, RICH], ids=["plain", "rich"])
@pytest.mark.parametrize(
    ("family", "dtype", "tied"),
    [
        ("mistral", "bfloat16", False),
        ("llama", "bfloat16", True),
        ("mistral", "float16", True),
        ("llama", "float32", False),
    ],
)
def test_weights_are_those_that_peft_merges(
    family: str,
    dtype: str,
    tied: bool,
    lora: Mapping[str, Any],
    make_base: Callable[..., Path],
    make_lora: Callable[..., Path],
    tmp_path: Path,
) -> None:
    base = make_base(family, DTYPES[dtype], tied=tied)
    adapter = make_lora(base, **lora)
    made = merged(base, adapter, tmp_path / "out")
    assert made.shards == len(list(base.glob("*.safetensors"))) > 2
    before, found = tensors(base), tensors(tmp_path / "out")
    assert found.keys() == before.keys()
    assert tied == ("lm_head.weight" not in found)
    exact, rounded = peft_merged(base, adapter, torch.float32), peft_merged(base, adapter, DTYPES[dtype])
    changed = 0
    for name, value in found.items():
        assert value.dtype == before[name].dtype
        ours = value.astype(np.float32)
        wanted = exact[name].numpy()
        half_a_unit = np.ldexp(float(ml_dtypes.finfo(value.dtype).eps) / 4, np.frexp(wanted)[1])
        assert (np.abs(ours - wanted) <= half_a_unit + 1e-6).all()
        # PEFT rounds the update and then the sum, each by half a unit.
        assert (np.abs(ours - rounded[name].float().numpy()) <= 4 * half_a_unit + 1e-6).all()
        changed += not np.array_equal(ours, before[name].astype(np.float32))
    assert changed == made.checks["tensors"]["merged"] == (21 if lora else 6)


@pytest.mark.parametrize("family", ["mistral", "llama"])
def test_logits_are_those_of_base_and_adapter(
    family: str, make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base(family, torch.float32)
    adapter = make_lora(base, **RICH)
    merged(base, adapter, tmp_path / "out")
    found = logits_distance(base, adapter, tmp_path / "out", torch.float32)
    assert found["difference"] < 1e-5
    assert found["effect"] > 0.1
    assert found["agreement"] == 1.0
    other = make_lora(base, seed=9)
    assert logits_distance(base, other, tmp_path / "out", torch.float32)["difference"] > 0.1


def test_what_is_made_is_a_base_with_everything_beside_its_weights(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base()
    adapter = make_lora(base)
    made = merged(base, adapter, tmp_path / "models" / "out")
    out = tmp_path / "models" / "out"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    names = {path.name for path in base.iterdir()} - {"modeling_custom.py"}
    assert {path.name for path in out.iterdir()} == names | {MERGE_FILE}
    for name in ("config.json", "tokenizer.json", "tokenizer_config.json", "LICENSE.txt"):
        assert (out / name).read_bytes() == (base / name).read_bytes()
    manifest = json.loads((out / MERGE_FILE).read_text(encoding="utf-8"))
    assert manifest["digest"] == made.digest == base_digest(out)
    assert manifest["base"] == {"name": "tiny", "digest": base_digest(base)}
    assert manifest["adapter"]["digest"] == read_manifest(adapter).digest
    assert manifest["checks"]["logits"] == {"skipped": "a test"}
    again = merged(base, adapter, out)
    assert (again.new, again.digest) == (False, made.digest)


def test_an_index_that_the_base_does_not_use_is_not_copied(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base(shard="1GB")
    adapter = make_lora(base)
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    assert merged(base, adapter, tmp_path / "out").shards == 1
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert {name for name in names if "safetensors" in name} == {"model.safetensors"}


def test_a_place_that_is_taken_is_refused(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base()
    (tmp_path / "taken").mkdir()
    with pytest.raises(MergeError, match="--output"):
        merged(base, make_lora(base), tmp_path / "taken")
    merged(base, make_lora(base), tmp_path / "out")
    with pytest.raises(MergeError, match="--output"):
        merged(base, make_lora(base, seed=2), tmp_path / "out")
    (tmp_path / "out" / "tokenizer.json").write_text("{}", encoding="utf-8")
    with pytest.raises(MergeError) as caught:
        merged(base, make_lora(base), tmp_path / "out")
    assert caught.value.path == tmp_path / "out"
    assert "--output" not in str(caught.value)


def edited(folder: Path, change: Callable[[dict[str, NDArray[Any]]], object]) -> None:
    for path in folder.glob("*.safetensors"):
        held = load_file(path)
        change(held)
        save_file(held, path, metadata={"format": "pt"})


def test_bases_that_cannot_be_merged_into_are_refused_and_leave_nothing(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    name = "model.layers.1.self_attn.v_proj.weight"

    def refused(base: Path, message: str) -> None:
        with pytest.raises(BaseModelError, match=message):
            merged(base, lora, tmp_path / "out")
        assert not (tmp_path / "out").exists()

    lora = make_lora(make_base())
    quantized = make_base()
    config = json.loads((quantized / "config.json").read_text(encoding="utf-8"))
    text = json.dumps({**config, "quantization_config": {"bits": 4}})
    (quantized / "config.json").write_text(text, encoding="utf-8")
    refused(quantized, r"config\.json")
    without = make_base(shard="1GB")
    edited(without, lambda held: held.pop(name))
    refused(without, name)
    whole_numbers = make_base(shard="1GB")
    edited(whole_numbers, lambda held: held.update({name: held[name].astype(np.int8)}))
    refused(whole_numbers, rf"{name} .*\bI8\b")
    narrow = make_base(shard="1GB")
    edited(narrow, lambda held: held.update({name: held[name][:8].copy()}))
    refused(narrow, rf"{name} .*\[8, \d+\]")
    full = make_base(dtype=torch.float16, shard="1GB")
    edited(full, lambda held: held.update({name: np.full_like(held[name], 65504)}))
    lora = make_lora(full, seed=3, scale=4.0)
    refused(full, r"\.weight .*\bF16\b")


def test_what_was_made_is_recorded_before_it_is_visible(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    work = job(base := make_base(), make_lora(base), tmp_path / "out")
    told: list[str] = []

    def refuse(digest: str) -> None:
        told.append(digest)
        assert not (tmp_path / "out").exists()
        raise OSError("the ledger cannot be written")

    with pytest.raises(OSError, match="the ledger"):
        work.run(Quiet(), unchecked, refuse)
    assert not (tmp_path / "out").exists()
    assert work.run(Quiet(), unchecked, told.append).digest == told[0] == told[1]
