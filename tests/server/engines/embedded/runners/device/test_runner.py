"""The runner for devices beside the CPU's: the same logits whatever is asked of both, in whatever order."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.providers import PROVIDERS
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.device.sessions import detach_weights
from server.engines.embedded.runners.protocol import DecodeRow
from server.request import AdapterMix
from tests.server.engines.embedded.models import ADAPTERS, VOCABULARY, write_adapter, write_model

ROWS, CONTEXT = 5, 300
TOLERANCE = 5e-5
"""Each CPU adds up float32 sums in its own order; an adapter moves logits by a thousand times more."""
VOICES: list[AdapterMix] = [(), (("en", 1.0),), (("sv", 1.0),), (("en", 0.3), ("sv", 0.7))]


class Pair:
    """Both runners, told the same; every logit is compared."""

    def __init__(self, base: Path, adapters: dict[str, AdapterWeights], tolerance: float = TOLERANCE) -> None:
        graphs = base.parent / "graphs"
        self.cpu = CpuRunner(prepare(base, graphs, "base"), ROWS, CONTEXT, threads=1)
        portable = prepare(base, graphs, "base", variant=PORTABLE)
        self.device = DeviceRunner(portable, PROVIDERS["cpu"], ROWS, CONTEXT, 80)
        self.adapters, self.tolerance = adapters, tolerance
        self.lengths = [0] * ROWS
        for name in ("en", "sv"):
            self.load(name)

    def load(self, name: str) -> None:
        self.cpu.load(name, self.adapters[name])
        self.device.load(name, self.adapters[name])

    def unload(self, name: str) -> None:
        self.cpu.unload(name)
        self.device.unload(name)

    def prefill(
        self, row: int, start: int, tokens: list[int], adapter_mix: AdapterMix, outputs: list[int]
    ) -> None:
        found = self.device.prefill(row, start, tokens, adapter_mix, outputs)
        expected = self.cpu.prefill(row, start, tokens, adapter_mix, outputs)
        np.testing.assert_allclose(found, expected, atol=self.tolerance, rtol=0)
        self.lengths[row] = start + len(tokens)

    def decode(self, rows: list[DecodeRow]) -> None:
        found, expected = self.device.decode(rows), self.cpu.decode(rows)
        np.testing.assert_allclose(found, expected, atol=self.tolerance, rtol=0)
        for entry in rows:
            self.lengths[entry.row] = entry.position + 1

    def copy(self, source: int, target: int, length: int) -> None:
        self.cpu.copy(source, target, length)
        self.device.copy(source, target, length)
        self.lengths[target] = length

    def release(self, row: int) -> None:
        self.cpu.release(row)
        self.device.release(row)
        self.lengths[row] = 0

    def clear(self) -> None:
        for row in range(ROWS):
            self.release(row)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("device") / "base"
    return write_model(folder, max_position_embeddings=CONTEXT, initializer_range=0.1, sliding_window=200)


@pytest.fixture(scope="module")
def adapters(base: Path) -> dict[str, AdapterWeights]:
    shape = ModelShape.read(base)
    folders = {
        name: write_adapter(base.parent / name, base, *ADAPTERS[name], seed)
        for seed, name in enumerate(("en", "sv"))
    }
    return {name: read_adapter(folder, shape) for name, folder in folders.items()}


@pytest.fixture(scope="module")
def pair(base: Path, adapters: dict[str, AdapterWeights]) -> Iterator[Pair]:
    pair = Pair(base, adapters)
    yield pair
    pair.cpu.close()
    pair.device.close()


def test_adapters_change_logits_by_far_more_than_the_tolerance(pair: Pair) -> None:
    pair.clear()
    tokens = np.random.default_rng(0).integers(0, VOCABULARY, 40).tolist()
    plain, *others = (pair.device.prefill(0, 0, tokens, voice, [39]).copy() for voice in VOICES)
    assert min(np.abs(other - plain).max() for other in others) > 1000 * TOLERANCE


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_whatever_is_asked_both_compute_the_same(pair: Pair, data: st.DataObject) -> None:
    pair.clear()
    rng = np.random.default_rng(data.draw(st.integers(0, 1000)))
    mixes = [data.draw(st.sampled_from(VOICES)) for _ in range(ROWS)]
    for _ in range(data.draw(st.integers(3, 14))):
        row = data.draw(st.integers(0, ROWS - 1))
        match data.draw(
            st.sampled_from(["prefill", "prefill", "decode", "decode", "copy", "release", "swap"])
        ):
            case "prefill":
                start = data.draw(st.integers(0, pair.lengths[row]))
                count = data.draw(st.integers(1, min(130, CONTEXT - start)))
                outputs = sorted(data.draw(st.sets(st.integers(0, count - 1), max_size=3)))
                pair.prefill(row, start, rng.integers(0, VOCABULARY, count).tolist(), mixes[row], outputs)
            case "decode":
                room = [row for row in range(ROWS) if pair.lengths[row] < CONTEXT]
                chosen = sorted(data.draw(st.sets(st.sampled_from(room), min_size=1))) if room else []
                for _ in range(data.draw(st.integers(1, 3))):
                    entries = [
                        DecodeRow(row, int(rng.integers(VOCABULARY)), pair.lengths[row], mixes[row])
                        for row in chosen
                        if pair.lengths[row] < CONTEXT
                    ]
                    if entries:
                        pair.decode(entries)
            case "copy":
                pair.copy(
                    row, data.draw(st.integers(0, ROWS - 1)), data.draw(st.integers(0, pair.lengths[row]))
                )
            case "release":
                pair.release(row)
            case _:
                name = data.draw(st.sampled_from(["en", "sv"]))
                pair.unload(name)
                pair.load(name)


def test_rows_that_leave_a_batch_take_all_they_hold_along(pair: Pair) -> None:
    pair.clear()
    rng = np.random.default_rng(0)
    for row, length in enumerate((200, 9, 40, 130, 20)):
        pair.prefill(row, 0, rng.integers(0, VOCABULARY, length).tolist(), VOICES[row % 4], [length - 1])
    for chosen in (range(5), [1], [1, 2], [0, 3], range(5), [0]):
        entries = [DecodeRow(row, 7, pair.lengths[row], VOICES[row % 4]) for row in chosen]
        pair.decode(entries)


def test_a_session_holds_no_weights_of_its_own(base: Path) -> None:
    graph = prepare(base, base.parent / "graphs", "base", variant=PORTABLE)
    model, weights = detach_weights(graph)
    held = onnx.load_from_string(model).graph.initializer
    assert sum(len(tensor.raw_data) for tensor in held) < 1024
    shape = ModelShape.read(base)
    assert weights["model.embed_tokens.weight"].shape == (VOCABULARY, shape.sizes.hidden)


def test_an_unavailable_provider_is_an_error_and_not_the_cpu_in_silence(base: Path) -> None:
    graph = prepare(base, base.parent / "graphs", "base", variant=PORTABLE)
    with pytest.warns(UserWarning, match="Dml"), pytest.raises(RuntimeError, match="Dml"):
        DeviceRunner(graph, PROVIDERS["directml"], ROWS, CONTEXT)


def test_a_graph_for_the_cpu_is_refused(base: Path) -> None:
    with pytest.raises(ValueError, match="'portable'"):
        DeviceRunner(prepare(base, base.parent / "graphs", "base"), PROVIDERS["cpu"], ROWS, CONTEXT)
