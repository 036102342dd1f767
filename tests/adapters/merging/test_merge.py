"""A merged model is base + adapter: against PEFT's own merge, and through stops, faults and refusals."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from safetensors import safe_open
from safetensors.numpy import load_file, save_file
from transformers import AutoModelForCausalLM

from adapters.errors import BaseModelError
from adapters.files import atomic
from adapters.lora.digest import base_digest
from adapters.lora.manifest import read_manifest
from adapters.lora.weights import LowRank
from adapters.merging import logits
from adapters.merging.logits import compare_logits
from adapters.merging.logits_child import logits_distance
from adapters.merging.merge import MERGE_FILE, Merge, MergeError, MergeResult, WrongModelError
from adapters.merging.shards import Shard, check_merged, write_merged
from adapters.training.loop.progress import Reporter
from bench.random_model import DecoderShape, write_adapter, write_model

EVERY = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
PLAIN: Mapping[str, Any] = {}
RICH: Mapping[str, Any] = {
    "r": 8,
    "target_modules": EVERY,
    "use_rslora": True,
    "rank_pattern": {"q_proj": 2},
    "alpha_pattern": {"down_proj": 32},
}
DTYPES = {"bfloat16": torch.bfloat16, "float16": torch.float16, "float32": torch.float32}


class Quiet:
    """Tells nobody; stops the merge at a step where it is told to."""

    def __init__(self, stop_at: int | None = None) -> None:
        self.stop_at, self.steps = stop_at, 0

    @contextmanager
    def stage(self, name: str, total: int, done: int = 0) -> Generator[Quiet]:
        yield self

    def step(self, done: int) -> None:
        self.steps += 1
        if self.steps == self.stop_at:
            raise KeyboardInterrupt


def unchecked(folder: Path) -> Mapping[str, Any]:
    return {"skipped": "a test"}


def job(base: Path, lora: Path, output: Path) -> Merge:
    return Merge(base=base, base_name="tiny", adapter=read_manifest(lora), output=output)


def merged(base: Path, lora: Path, output: Path) -> MergeResult:
    return job(base, lora, output).run(Quiet(), unchecked)


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


@pytest.fixture(scope="module")
def larger(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """A base of 14 MiB in five files, and an adapter."""
    root = tmp_path_factory.mktemp("larger")
    shape = DecoderShape(256, 4, 4, 2, 64, 704, 1024)
    write_model(root / "base", shape, shard_bytes=3 << 20)
    write_adapter(root / "lora-v1", shape, 8, EVERY, 1)
    return root / "base", root / "lora-v1"


def test_a_merge_that_is_stopped_goes_on_with_what_is_left(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger
    whole = merged(base, lora, tmp_path / "whole")
    assert whole.shards == 5
    partial = tmp_path / ".out.merging"
    kept: dict[str, int] = {}
    for stop_at in (1, 9, 17):
        with pytest.raises(KeyboardInterrupt):
            job(base, lora, tmp_path / "out").run(Quiet(stop_at), unchecked)
        assert not (tmp_path / "out").exists()
        times = {path.name: path.stat().st_mtime_ns for path in partial.glob("*.safetensors")}
        assert kept.items() <= times.items()
        kept = times
    assert len(kept) >= 2
    damaged = next(iter(kept))
    (partial / damaged).write_bytes(b"damaged")
    made = merged(base, lora, tmp_path / "out")
    assert made.digest == whole.digest
    assert made.checks["tensors"] == whole.checks["tensors"]
    after = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in kept}
    assert [name for name in kept if after[name] != kept[name]] == [damaged]


def test_what_was_begun_for_another_adapter_is_not_used(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger
    other = tmp_path / "other-v1"
    write_adapter(other, DecoderShape(256, 4, 4, 2, 64, 704, 1024), 4, ["q_proj"], 2)
    with pytest.raises(KeyboardInterrupt):
        job(base, other, tmp_path / "out").run(Quiet(15), unchecked)
    assert merged(base, lora, tmp_path / "out").digest == merged(base, lora, tmp_path / "again").digest


def test_a_merge_that_is_killed_leaves_nothing_or_goes_on(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger
    whole = merged(base, lora, tmp_path / "whole").digest
    code = (
        "import sys; from pathlib import Path; from adapters.lora.manifest import read_manifest\n"
        "from adapters.merging.merge import Merge; from adapters.training.loop.progress import Reporter\n"
        "base, lora, output = map(Path, sys.argv[1:]); adapter = read_manifest(lora)\n"
        "print(flush=True)\n"
        "Merge(base=base, base_name='b', adapter=adapter, output=output).run(Reporter(), lambda folder: {})"
    )
    output = tmp_path / "out"
    for delay in (0.02, 0.05, 0.1, 0.2):
        command = [sys.executable, "-c", code, str(base), str(lora), str(output)]
        child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert child.stdout is not None
        child.stdout.read(1)
        time.sleep(delay)
        child.send_signal(signal.SIGKILL if sys.platform != "win32" else signal.SIGTERM)
        child.communicate()
        if output.exists():
            assert base_digest(output) == whole
            shutil.rmtree(output)
    assert merged(base, lora, output).digest == whole


def test_two_at_once_do_not_meet(larger: tuple[Path, Path], tmp_path: Path) -> None:
    base, lora = larger

    def second(folder: Path) -> Mapping[str, Any]:
        with pytest.raises(MergeError) as caught:
            merged(base, lora, tmp_path / "out")
        assert caught.value.path.name == ".out.merging"
        return {}

    assert job(base, lora, tmp_path / "out").run(Quiet(), second).new


def test_a_base_that_changes_meanwhile_is_noticed(
    make_base: Callable[..., Path], make_lora: Callable[..., Path], tmp_path: Path
) -> None:
    base = make_base()
    work = job(base, make_lora(base), tmp_path / "out")
    changed = replace(work, output=tmp_path / "other")

    class Meddling(Quiet):
        @contextmanager
        def stage(self, name: str, total: int, done: int = 0) -> Generator[Quiet]:
            yield self
            (base / "tokenizer.json").write_text("{}", encoding="utf-8")

    with pytest.raises(MergeError) as caught:
        changed.run(Meddling(), unchecked)
    assert caught.value.path == base


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


def test_progress_is_told_in_mebibytes(
    larger: tuple[Path, Path], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    base, lora = larger
    job(base, lora, tmp_path / "out").run(Reporter(every=0), unchecked)
    lines = [json.loads(line) for line in capsys.readouterr().err.splitlines()]
    assert [line["done"] for line in lines] == sorted(line["done"] for line in lines)
    size = sum(path.stat().st_size for path in base.glob("*.safetensors"))
    assert lines[-1]["done"] == lines[-1]["of"] == math.floor(2 * size / (1 << 20))
    with safe_open(next((tmp_path / "out").glob("*.safetensors")), "np") as file:
        assert file.metadata() == {"format": "pt"}


def test_a_merge_waits_for_a_scanner(
    larger: tuple[Path, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Windows refuses every other move for a moment, of a shard and of the finished folder."""
    refused: list[str] = []
    for name in ("rename", "replace"):
        move = getattr(os, name)

        def scanned(source: Path, target: Path, name: str = name, move: Callable[..., None] = move) -> None:
            if refused.count(str(target)) == 0:
                refused.append(str(target))
                raise PermissionError(13, "The process cannot access the file")
            move(source, target)

        monkeypatch.setattr(os, name, scanned)
    monkeypatch.setattr(atomic, "sys", SimpleNamespace(platform="win32"))
    made = merged(*larger, tmp_path / "made")
    assert str(made.path) in refused
    assert base_digest(made.path) == made.digest
