"""The self-test between real runners: it passes where the arithmetic agrees and fails where it does not."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.model.cache import BuiltGraph, prepare
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.reference_runner import ReferenceRunner
from server.engines.embedded.runners.device.selftest import (
    THRESHOLDS,
    Precision,
    SelfTest,
    exercise,
    foretell,
    judge_logits,
    precision_of,
    threshold_of,
)
from server.engines.embedded.runners.protocol import DecodeRow
from server.request import AdapterMix
from tests.server.engines.embedded.models import EVERY, VOCABULARY, Reference, write_adapter, write_model

CONTEXT = 32
SV: AdapterMix = (("sv", 1.0),)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_model(tmp_path_factory.mktemp("selftest") / "base", sliding_window=11)


@pytest.fixture(scope="module")
def folder(base: Path) -> Path:
    return write_adapter(base.parent / "sv", base, 8, EVERY, 3)


@pytest.fixture(scope="module")
def weights(base: Path, folder: Path) -> AdapterWeights:
    return read_adapter(folder, ModelShape.read(base))


@pytest.fixture(scope="module")
def cpu(base: Path, weights: AdapterWeights) -> CpuRunner:
    runner = CpuRunner(prepare(base, base.parent / "graphs", "sha256:base"), 4, CONTEXT, 1)
    runner.load("sv", weights)
    return runner


def portable(base: Path, dtype: Dtype = "fp32", quantize: Quantize = "none") -> BuiltGraph:
    return prepare(base, base.parent / "graphs", "sha256:base", quantize, PORTABLE, dtype)


def truth(graph: BuiltGraph, weights: AdapterWeights, context: int = CONTEXT) -> ReferenceRunner:
    runner = ReferenceRunner(graph, 2, context, 1)
    runner.load("sv", weights)
    return runner


@pytest.mark.parametrize("adapter_mix", [(), SV], ids=["base", "adapter"])
def test_the_same_arithmetic_passes_in_any_rows(
    base: Path, weights: AdapterWeights, cpu: CpuRunner, adapter_mix: AdapterMix
) -> None:
    golden = exercise(truth(portable(base), weights), (0, 1), CONTEXT, adapter_mix)
    result = judge_logits(
        "the base", "cpu", "fp32", "none", exercise(cpu, (1, 3), CONTEXT, adapter_mix), golden
    )
    assert result.passed
    assert result.difference < 1e-4
    assert result.agreed == result.positions == 10


def test_the_truth_is_transformers(base: Path, folder: Path, weights: AdapterWeights) -> None:
    """Every position of the exercise, by a library that shares nothing with ours."""
    reference = Reference(base, {"sv": folder})
    told = Told(truth(portable(base), weights))
    golden = exercise(told, (0, 1), CONTEXT, SV)
    first, beside = (
        reference.logits(told.tokens[row], adapter_mix) for row, adapter_mix in ((0, SV), (1, ()))
    )
    expected = [first[4], first[8], first[13], beside[4]]
    for step in range(3):
        expected += [first[14 + step], beside[5 + step]]
    np.testing.assert_allclose(golden, np.array(expected), atol=1e-4)


class Told(ReferenceRunner):
    """Keeps what each row was given."""

    def __init__(self, runner: ReferenceRunner) -> None:
        self.__dict__ |= runner.__dict__
        self.tokens: dict[int, list[int]] = {0: [], 1: []}

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        assert len(self.tokens[row]) == start
        self.tokens[row] += tokens
        return super().prefill(row, start, tokens, adapter_mix, outputs)


@pytest.mark.parametrize(
    ("dtype", "quantize", "most"), [("fp16", "none", 0.05), ("fp32", "int8", 0.5), ("fp32", "int4", 5.0)]
)
def test_the_truth_runs_what_devices_run(
    base: Path, weights: AdapterWeights, dtype: Dtype, quantize: Quantize, most: float
) -> None:
    """In half precision and in 8 and 4 bits it stays near what the base is in float32."""
    exact = exercise(truth(portable(base), weights), (0, 1), CONTEXT, SV)
    found = exercise(truth(portable(base, dtype, quantize), weights), (0, 1), CONTEXT, SV)
    assert 0 < np.abs(found - exact).max() < most


Fault = Callable[[NDArray[np.float32]], NDArray[np.float32]]


def nudged(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    logits = logits.copy()
    logits[-1, 7] += 2e-3
    return logits


def broken(value: float) -> Fault:
    def fault(logits: NDArray[np.float32]) -> NDArray[np.float32]:
        logits = logits.copy()
        logits[0, 0] = value
        return logits

    return fault


@pytest.mark.parametrize(
    "fault",
    [nudged, np.zeros_like, broken(math.nan), broken(math.inf)],
    ids=["nudged", "zeros", "nan", "inf"],
)
def test_one_wrong_logit_is_enough(base: Path, weights: AdapterWeights, fault: Fault) -> None:
    golden = exercise(truth(portable(base), weights), (0, 1), CONTEXT, ())
    assert judge_logits("the base", "webgpu", "fp32", "none", golden, golden).passed
    result = judge_logits("the base", "webgpu", "fp32", "none", fault(golden), golden)
    assert not result.passed
    assert "webgpu" in str(result)
    assert "the base" in str(result)


class ForgetsThePast(ReferenceRunner):
    """As DirectML's fused attention does where a chunk has a past."""

    def __init__(self, runner: ReferenceRunner) -> None:
        self.__dict__ |= runner.__dict__

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        if start and len(tokens) > 1:
            self.release(row)
        return super().prefill(row, start, tokens, adapter_mix, outputs)


class MixesVoices(ForgetsThePast):
    """Gives the row beside the first row's adapter."""

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        return ReferenceRunner.prefill(self, row, start, tokens, adapter_mix, outputs)

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        return super().decode([replace(entry, adapter_mix=rows[0].adapter_mix) for entry in rows])


class IgnoresAdapters(MixesVoices):
    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        return super().prefill(row, start, tokens, (), outputs)


class WritesOverTheRowBeside(MixesVoices):
    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        self.copy(rows[0].row, rows[-1].row, rows[0].position)
        return ReferenceRunner.decode(self, rows)


@pytest.mark.parametrize("kind", [ForgetsThePast, MixesVoices, IgnoresAdapters, WritesOverTheRowBeside])
def test_what_devices_get_wrong_shows(
    kind: type[ForgetsThePast], base: Path, weights: AdapterWeights
) -> None:
    golden = exercise(truth(portable(base), weights), (0, 1), CONTEXT, SV)
    found = exercise(kind(truth(portable(base), weights)), (0, 1), CONTEXT, SV)
    assert judge_logits("sv", "directml", "fp16", "int4", found, golden).difference > 10 * THRESHOLDS["fp32"]


@pytest.mark.parametrize("context", [1, 2, 4, 15, 17])
@pytest.mark.parametrize("rows", [(0,), (0, 1)])
def test_short_contexts_and_a_single_row_are_enough(
    base: Path, weights: AdapterWeights, context: int, rows: tuple[int, ...]
) -> None:
    logits = exercise(truth(portable(base), weights, context), rows, context, ())
    assert logits.shape[1] == VOCABULARY
    assert len(logits) >= 1


@pytest.mark.parametrize("context", [1, 2, 4, 5, 6, 9, 15, 17, 32])
@pytest.mark.parametrize("rows", [(0,), (0, 1)])
def test_whole_rows_foretell_what_comes_out_step_by_step(
    base: Path, weights: AdapterWeights, context: int, rows: tuple[int, ...]
) -> None:
    runner = truth(portable(base), weights, context)
    expected = foretell(runner, len(rows), context, SV)
    np.testing.assert_allclose(exercise(runner, rows, context, SV), expected, atol=1e-4)


def test_the_rows_are_given_back(cpu: CpuRunner) -> None:
    exercise(cpu, (0, 2), CONTEXT, ())
    for row in (0, 2):
        with pytest.raises(ValueError, match="holds 0"):
            cpu.prefill(row, 1, [5], (), [])


def test_other_shapes_are_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\) .*\(1, 3\)"):
        judge_logits(
            "the base", "webgpu", "fp32", "none", np.zeros((2, 3), np.float32), np.zeros((1, 3), np.float32)
        )


@pytest.mark.parametrize(
    ("dtype", "quantize", "precision"),
    [("fp32", "none", "fp32"), ("fp16", "none", "fp16"), ("fp16", "int4", "int4"), ("fp32", "int8", "int8")],
)
def test_thresholds_go_by_the_weights(dtype: Dtype, quantize: Quantize, precision: Precision) -> None:
    assert precision_of(dtype, quantize) == precision
    assert THRESHOLDS == {"fp32": 1e-3, "fp16": 0.05, "int8": 0.15, "int4": 0.15}


def test_half_precision_is_judged_in_proportion_to_the_logits() -> None:
    small, large = np.full((1, 3), 0.8, np.float32), np.full((1, 3), -21.0, np.float32)
    assert threshold_of("fp16", "none", small) == 0.05
    assert threshold_of("fp16", "none", large) == pytest.approx(0.84)
    assert threshold_of("fp16", "int4", large) == 0.15
    assert threshold_of("fp32", "none", large) == 1e-3
    assert threshold_of("fp32", "int4", large) == 0.15


def test_the_verdict_names_device_subject_and_figures() -> None:
    bad = SelfTest("the base", "webgpu", "fp16", 0.05, 0.25, 7, 10)
    assert all(part in str(bad) for part in ("webgpu", "the base", "0.25", "0.05", "fp16", "7 of 10"))
    assert "0.05" not in str(replace(bad, difference=math.inf))
