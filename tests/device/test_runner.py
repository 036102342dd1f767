"""The runner for devices on a device: the base that ships, its adapters in one batch, swapped, copied."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.lora.families import LLAMA
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from adapters.mini.shipped import ADAPTERS, BASE
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device.providers import PROVIDERS
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.protocol import DecodeRow
from server.request import AdapterMix
from server.text.tokenizer import Tokenizer
from tests.device.thresholds import threshold

GRAPHS: list[tuple[Dtype, Quantize]] = [
    ("fp32", "none"),
    ("fp32", "int4"),
    ("fp16", "none"),
    ("fp16", "int4"),
]
EN, SV, BLEND = (("en", 1.0),), (("sv", 1.0),), (("en", 0.5), ("sv", 0.5))
VOICES: list[AdapterMix] = [(), EN, SV, BLEND]
TEXTS = ("Who are you?", "What can you do for me today?", "Vem är du?", "Vad kan du göra för mig i dag?")
ROWS, CONTEXT, CHUNK = 6, 120, 16


@dataclass
class Both:
    """The device and the CPU, told the same."""

    device: DeviceRunner
    cpu: DeviceRunner
    dtype: Dtype
    quantize: Quantize

    def prefill(self, row: int, tokens: list[int], adapter_mix: AdapterMix) -> None:
        outputs = [0, len(tokens) - 1]
        self.check(*(runner.prefill(row, 0, tokens, adapter_mix, outputs).copy() for runner in self.runners))

    def decode(self, rows: list[DecodeRow]) -> NDArray[np.float32]:
        found, expected = (runner.decode(rows).copy() for runner in self.runners)
        self.check(found, expected)
        return found

    @property
    def runners(self) -> tuple[DeviceRunner, DeviceRunner]:
        return self.device, self.cpu

    def check(self, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
        assert np.abs(found - expected).max() < self.threshold(expected)

    def threshold(self, expected: NDArray[np.float32]) -> float:
        return threshold(self.dtype, self.quantize, expected)


@pytest.fixture(scope="module")
def loras() -> dict[str, AdapterWeights]:
    shape = ModelShape.read(BASE)
    return {folder.name[-2:]: read_adapter(folder, shape) for folder in ADAPTERS}


@pytest.fixture(scope="module", params=GRAPHS, ids="-".join)
def opened(
    request: pytest.FixtureRequest,
    tmp_path_factory: pytest.TempPathFactory,
    loras: dict[str, AdapterWeights],
) -> Iterator[Both]:
    dtype, quantize = request.param
    graph = prepare(BASE, tmp_path_factory.mktemp("graphs"), "mini", quantize, variant=PORTABLE, dtype=dtype)
    runners = [DeviceRunner(graph, PROVIDERS[name], ROWS, CONTEXT, CHUNK) for name in ("webgpu", "cpu")]
    both = Both(runners[0], runners[1], dtype, quantize)
    yield both
    for runner in runners:
        runner.close()


@pytest.fixture
def both(opened: Both, loras: dict[str, AdapterWeights]) -> Iterator[Both]:
    """Both voices resident, every row empty."""
    for runner in opened.runners:
        for name, weights in loras.items():
            runner.load(name, weights)
    yield opened
    for runner in opened.runners:
        for row in range(ROWS):
            runner.release(row)
        for name in loras:
            runner.unload(name)


@pytest.fixture(scope="module")
def prompts() -> list[list[int]]:
    tokenizer = Tokenizer.load(BASE)
    return [tokenizer.encode(text) for text in TEXTS]


def next_tokens(prompts: list[list[int]], rows: range, at: int, mixes: list[AdapterMix]) -> list[DecodeRow]:
    return [DecodeRow(row, 300 + 7 * row + at, len(prompts[row]) + at, mixes[row]) for row in rows]


def test_adapters_share_a_batch(both: Both, prompts: list[list[int]]) -> None:
    for row, adapter_mix in enumerate(VOICES):
        both.prefill(row, prompts[row], adapter_mix)
    for at in range(4):
        both.decode(next_tokens(prompts, range(4), at, VOICES))
    both.decode(next_tokens(prompts, range(1, 3), 4, VOICES))


def test_a_hot_swap_changes_one_voice_and_no_other(
    both: Both, prompts: list[list[int]], loras: dict[str, AdapterWeights]
) -> None:
    """A row of a mixed batch gets the new version while the others go on with what they had."""
    for row, adapter_mix in enumerate(VOICES):
        both.prefill(row, prompts[row], adapter_mix)
    before = both.decode(next_tokens(prompts, range(4), 0, VOICES))
    twice = {key: replace(low, scaling=2 * low.scaling) for key, low in loras["sv"].modules.items()}
    for runner in both.runners:
        runner.load("sv-next", AdapterWeights(LLAMA, twice))
        runner.release(3)
        runner.unload("sv")
    mixes = [*VOICES[:2], (("sv-next", 1.0),), ()]
    both.prefill(2, prompts[2], mixes[2])
    after = both.decode(next_tokens(prompts, range(3), 0, mixes))
    assert np.abs(after[2] - before[2]).max() > 2 * both.threshold(before)
    both.decode(next_tokens(prompts, range(3), 1, mixes))
    for runner in both.runners:
        runner.release(2)
        runner.unload("sv-next")
        runner.load("sv", loras["sv"])


def test_a_copied_prefix_goes_on_as_its_source(both: Both, prompts: list[list[int]]) -> None:
    both.prefill(0, prompts[0], EN)
    both.prefill(4, prompts[1], SV)
    for runner in both.runners:
        runner.copy(0, 5, len(prompts[0]))
        runner.copy(0, 4, len(prompts[0]) - 1)
    at = len(prompts[0])
    found = both.decode([DecodeRow(0, 77, at, EN), DecodeRow(5, 77, at, EN)])
    np.testing.assert_allclose(found[0], found[1], atol=1e-5)
    both.decode([DecodeRow(4, prompts[0][-1], at - 1, EN), DecodeRow(5, 78, at + 1, EN)])


def test_a_row_grows_past_its_first_memory_and_is_used_again(both: Both, prompts: list[list[int]]) -> None:
    long = (prompts[1] + prompts[3]) * 8
    both.prefill(1, long[:100], SV)
    both.decode([DecodeRow(1, 55, 100, SV)])
    for runner in both.runners:
        runner.release(1)
    both.prefill(1, prompts[0], ())
    both.decode([DecodeRow(1, 55, len(prompts[0]), ())])
