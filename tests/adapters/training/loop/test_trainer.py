"""The same updates however the rows are computed: in pieces, by two processes, with activations again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from adapters.training.loop.trainer import Setup
from tests.adapters.training.loop import plain_sgd

ROOT = Path(__file__).resolve().parents[4]
Fit = tuple[dict[str, torch.Tensor], list[tuple[int, float]]]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """One process that computes all rows at once."""
    return plain_sgd.fit(tmp_path_factory.mktemp("whole"), Setup(precision="fp32"))


def assert_same(found: Fit, whole: Fit) -> None:
    """Up to rounding in float32, on any CPU."""
    assert found[0].keys() == whole[0].keys()
    for name, value in whole[0].items():
        torch.testing.assert_close(found[0][name], value, rtol=1e-3, atol=1e-5)
    assert [step for step, _ in found[1]] == [step for step, _ in whole[1]]
    assert [loss for _, loss in found[1]] == pytest.approx([loss for _, loss in whole[1]], rel=1e-4)


def test_it_learns_by_far_more_than_the_tolerance(whole: Fit) -> None:
    torch.manual_seed(0)
    start = plain_sgd.LlamaForCausalLM(plain_sgd.CONFIG).state_dict()
    moved = [float((value - start[name]).abs().max()) for name, value in whole[0].items()]
    assert min(moved) > 0.01
    losses = [loss for _, loss in whole[1]]
    assert max(losses) - min(losses) > 0.1


@pytest.mark.parametrize(
    "changes", [{"micro_rows": 1}, {"micro_rows": 3}, {"gradient_checkpointing": True}], ids=str
)
def test_how_it_is_computed_changes_the_last_bits_alone(
    changes: dict[str, Any], whole: Fit, tmp_path: Path
) -> None:
    assert_same(plain_sgd.fit(tmp_path, Setup(precision="fp32", **changes)), whole)


@pytest.mark.slow
def test_two_processes_make_what_one_makes(whole: Fit, tmp_path: Path) -> None:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    program = ["-m", "tests.adapters.training.loop.plain_sgd", str(tmp_path)]
    environ = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    subprocess.run([sys.executable, *launcher, *program], env=environ, check=True, capture_output=True)
    losses = json.loads((tmp_path / plain_sgd.LOSSES).read_text(encoding="utf-8"))
    assert_same((load_file(tmp_path / plain_sgd.WEIGHTS), [tuple(pair) for pair in losses]), whole)
