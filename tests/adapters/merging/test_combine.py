"""One adapter of several: PEFT's methods, how far they are from the exact blend, and what is refused."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from peft import PeftModel
from transformers import AutoModelForCausalLM

from adapters.lora.digest import base_digest
from adapters.lora.manifest import read_manifest
from adapters.lora.shape_check import ModelShape
from adapters.lora.weights import read_adapter
from adapters.merging import combine as module
from adapters.merging.combine import METHODS, Combination, CombineError, CombineResult
from adapters.merging.combine_child import combine
from adapters.training.loop.child import ChildError, run_in_child

Updates = dict[tuple[int, str], NDArray[np.float64]]


@pytest.fixture(scope="module")
def base(make_base: Callable[..., Path]) -> Path:
    return make_base(dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def loras(base: Path, make_lora: Callable[..., Path]) -> list[Path]:
    return [
        make_lora(base, seed=1),
        make_lora(base, seed=2, lora_alpha=16, target_modules=["q_proj", "v_proj", "o_proj"]),
    ]


@pytest.fixture(autouse=True)
def in_this_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Starting a process with torch takes seconds; the command line's tests do that."""

    def here(module: str, given: str) -> str:
        assert module == "adapters.merging.combine_child"
        combine(**json.loads(given))
        return ""

    monkeypatch.setattr(module, "run_in_child", here)


def plan(base: Path, loras: list[Path], weights: tuple[float, ...] = (0.7, 0.3), **given: Any) -> Combination:
    parts = [(read_manifest(lora), weight) for lora, weight in zip(loras, weights, strict=True)]
    return Combination(base=base, base_digest=base_digest(base), parts=parts, **given)


def updates(base: Path, folder: Path) -> Updates:
    found = read_adapter(folder, ModelShape.read(base)).modules
    return {key: (m.scaling * (m.b.astype(np.float64) @ m.a)) for key, m in found.items()}


def blend(base: Path, loras: list[Path], weights: tuple[float, ...] = (0.7, 0.3)) -> Updates:
    total: Updates = {}
    for lora, weight in zip(loras, weights, strict=True):
        for key, update in updates(base, lora).items():
            total[key] = total.get(key, 0) + weight * update
    return total


def apart(made: Updates, wanted: Updates) -> float:
    off = sum(float(((made.get(key, 0) - update) ** 2).sum()) for key, update in wanted.items())
    return math.sqrt(off / sum(float((update**2).sum()) for update in wanted.values()))


def test_svd_of_the_summed_rank_is_the_exact_blend(base: Path, loras: list[Path], tmp_path: Path) -> None:
    made = plan(base, loras).make(tmp_path / "both-v1")
    assert made.adapter.rank == 8
    assert made.apart < 1e-5
    found, wanted = updates(base, tmp_path / "both-v1"), blend(base, loras)
    assert found.keys() == wanted.keys()
    for key, update in wanted.items():
        np.testing.assert_allclose(found[key], update, atol=1e-5)
    assert made.adapter.full_name == "both@v1"
    assert made.adapter.base_digest == base_digest(base)
    told = json.loads((tmp_path / "both-v1" / "oneseek.json").read_text(encoding="utf-8"))
    assert told["parents"] == [read_manifest(lora).digest for lora in loras]
    assert told["about"]["combined"]["weights"] == {"lora@v1": 0.7, "lora@v2": 0.3}


def test_svd_of_a_lower_rank_is_the_best_of_that_rank(base: Path, loras: list[Path], tmp_path: Path) -> None:
    made = plan(base, loras, rank=3).make(tmp_path / "both-v1")
    best = 0.0
    wanted = blend(base, loras)
    for update in wanted.values():
        best += float((np.linalg.svd(update, compute_uv=False)[3:] ** 2).sum())
    size = sum(float((update**2).sum()) for update in wanted.values())
    assert made.adapter.rank == 3
    assert made.apart == pytest.approx(math.sqrt(best / size), rel=1e-3)


@pytest.mark.parametrize("method", METHODS)
def test_the_distance_that_is_told_is_that_of_the_whole_matrices(
    method: Any, base: Path, loras: list[Path], tmp_path: Path
) -> None:
    made = plan(base, loras, (0.7, -0.3), method=method).make(tmp_path / "both-v1")
    wanted = blend(base, loras, (0.7, -0.3))
    assert made.apart == pytest.approx(apart(updates(base, tmp_path / "both-v1"), wanted), abs=1e-4)
    assert (made.apart > 0.1) == (method != "svd")


@pytest.mark.parametrize("method", ["svd", "linear", "ties"])
def test_the_skeleton_gives_what_peft_makes_on_the_real_base(
    method: Any, base: Path, loras: list[Path], tmp_path: Path
) -> None:
    plan(base, loras, method=method).make(tmp_path / "ours-v1")
    model = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
    tuner = PeftModel.from_pretrained(model, str(loras[0]), adapter_name="first")
    tuner.load_adapter(str(loras[1]), adapter_name="second")
    more: dict[str, Any] = {"svd_rank": 8} if method == "svd" else {}
    more |= {"density": 0.5} if method == "ties" else {}
    tuner.base_model.add_weighted_adapter(  # pyright: ignore[reportCallIssue]
        ["first", "second"], [0.7, 0.3], "third", combination_type=method, **more
    )
    tuner.save_pretrained(str(tmp_path / "theirs"), selected_adapters=["third"])
    theirs, ours = updates(base, tmp_path / "theirs" / "third"), updates(base, tmp_path / "ours-v1")
    assert theirs.keys() == ours.keys()
    for key, update in theirs.items():
        np.testing.assert_allclose(ours[key], update, atol=1e-5)


def test_what_is_dropped_depends_on_the_seed_alone(base: Path, loras: list[Path], tmp_path: Path) -> None:
    def made(name: str, seed: int) -> CombineResult:
        return plan(base, loras, method="dare_ties", seed=seed).make(tmp_path / name / "both-v1")

    one, same, other = made("a", 1), made("b", 1), made("c", 2)
    assert one.adapter.digest == same.adapter.digest != other.adapter.digest


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"method": "cat"}, "--method .*'cat'"),
        ({"density": 0.0}, r"--density .*\b0\b"),
        ({"method": "ties", "rank": 4}, "--rank"),
        ({"rank": 1000}, r"--rank .*\b1000\b"),
    ],
)
def test_plans_that_make_no_sense_are_refused(
    given: dict[str, Any], reason: str, base: Path, loras: list[Path]
) -> None:
    with pytest.raises(ValueError, match=reason):
        plan(base, loras, **given)


def test_one_adapter_alone_and_ranks_that_differ_are_refused(
    base: Path, loras: list[Path], make_lora: Callable[..., Path]
) -> None:
    with pytest.raises(ValueError, match="--combine"):
        plan(base, loras[:1], (1.0,))
    wide = make_lora(base, seed=5, r=8)
    with pytest.raises(ValueError, match=r"\blinear\b.* 4\b.* 8\b.*\bsvd\b"):
        plan(base, [loras[0], wide], method="linear")


def test_a_failure_leaves_nothing_and_a_taken_place_is_refused(
    base: Path, loras: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(module: str, given: str) -> str:
        raise ChildError("no luck")

    monkeypatch.setattr(module, "run_in_child", failing)
    with pytest.raises(CombineError, match="no luck"):
        plan(base, loras).make(tmp_path / "both-v1")
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "both-v1").mkdir()
    with pytest.raises(CombineError, match="--output") as caught:
        plan(base, loras).make(tmp_path / "both-v1")
    assert caught.value.path == tmp_path / "both-v1"


def test_a_process_apart_tells_its_last_line_or_why_it_failed() -> None:
    assert run_in_child("this", given="").startswith("Namespaces")
    with pytest.raises(ChildError, match="No module named"):
        run_in_child("adapters.no_such_module")
