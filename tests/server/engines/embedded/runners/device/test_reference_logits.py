"""The CPU's logits: kept, found again, never taken for another graph's; and an engine that judges by them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.lora.manifest import Adapter, read_manifest
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.model.cache import BuiltGraph, prepare
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.families.lookup import read_model_config
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device import reference_logits as module
from server.engines.embedded.runners.device.reference_logits import (
    BASE,
    FOLDER,
    KEPT,
    DeviceCheck,
    truth_bytes,
)
from server.engines.embedded.runners.device.selftest import DeviceError
from server.engines.embedded.runners.protocol import DecodeRow
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import AdapterRefusedError
from server.text.tokenizer import Tokenizer
from tests.server.engines.asking import alone, ask, tokens

CONTEXT = 64
ROWS = 4
LIMITS = SchedulerLimits(
    max_num_seqs=2,
    max_num_batched_tokens=32,
    rows=ROWS,
    context=CONTEXT,
    kv_tokens=ROWS * CONTEXT,
    prefill_chunk=32,
    prefix_caching=True,
)
DIGEST = "sha256:" + "0" * 64


@pytest.fixture
def graph(tiny_base: Path, tmp_path: Path) -> BuiltGraph:
    return prepare(tiny_base, tmp_path, DIGEST, variant=PORTABLE)


@pytest.fixture
def weights(tiny_base: Path, tiny_adapters: dict[str, Path]) -> dict[str, AdapterWeights]:
    shape = ModelShape.read(tiny_base)
    return {name: read_adapter(folder, shape) for name, folder in tiny_adapters.items()}


class Device(CpuRunner):
    """The CPU as a device: right in all but what the test makes wrong."""

    wrong: frozenset[str] = frozenset()
    """Digests whose logits are off; `BASE` for all rows without an adapter."""
    fails = False

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        if self.fails:
            raise RuntimeError("DXGI_ERROR_DEVICE_REMOVED at C:\\Users\\someone")
        logits = super().decode(rows)
        for index, row in enumerate(rows):
            if {digest for digest, _ in row.adapter_mix or ((BASE, 1.0),)} & self.wrong:
                logits[index, 3] += 0.5
        return logits


@pytest.fixture
def device(tiny_base: Path, tmp_path: Path) -> Device:
    return Device(prepare(tiny_base, tmp_path, DIGEST), ROWS, CONTEXT, 1)


def check_of(graph: BuiltGraph) -> DeviceCheck:
    return DeviceCheck(graph, "webgpu", ROWS, CONTEXT, 1)


def test_what_was_computed_once_is_found_again(
    graph: BuiltGraph, device: Device, weights: dict[str, AdapterWeights], monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = {BASE: None, "sha256:sv": weights["sv"]}
    check_of(graph).prepare(wanted)
    assert len(list((graph.folder / FOLDER).iterdir())) == 2

    def never(*_: object) -> None:
        raise AssertionError("computed again")

    monkeypatch.setattr(module, "ReferenceRunner", never)
    check = check_of(graph)
    check.prepare(wanted)
    device.load("sha256:sv", weights["sv"])
    for digest in wanted:
        assert check.examine(device, (0, 2), digest).difference < 1e-4


@pytest.mark.parametrize("spoil", [b"", b"no logits", b"\x93NUMPY\x01\x00"], ids=["empty", "text", "torn"])
def test_a_spoiled_file_is_computed_again(graph: BuiltGraph, device: Device, spoil: bytes) -> None:
    check_of(graph).prepare({BASE: None})
    (kept,) = (graph.folder / FOLDER).iterdir()
    whole = kept.read_bytes()
    kept.write_bytes(spoil)
    check = check_of(graph)
    check.prepare({BASE: None})
    assert check.examine(device, (0, 1), BASE).passed
    assert kept.read_bytes() == whole


def test_logits_of_another_shape_are_not_these(graph: BuiltGraph, device: Device) -> None:
    check_of(graph).prepare({BASE: None})
    (kept,) = (graph.folder / FOLDER).iterdir()
    np.save(kept, np.zeros((10, 7), np.float32))
    check = check_of(graph)
    check.prepare({BASE: None})
    assert check.examine(device, (0, 1), BASE).passed


def test_a_folder_that_cannot_be_written_is_no_obstacle(
    graph: BuiltGraph, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    (graph.folder / FOLDER).write_text("in the way")
    check = check_of(graph)
    check.prepare({BASE: None})
    assert check.examine(device, (0, 1), BASE).passed
    assert "reference logits" in caplog.text


def test_old_files_go(graph: BuiltGraph) -> None:
    folder = graph.folder / FOLDER
    folder.mkdir()
    for number in range(KEPT + 5):
        (folder / f"old-{number}.npy").write_bytes(b"")
    check_of(graph).prepare({BASE: None})
    kept = sorted(path.name for path in folder.iterdir())
    assert len(kept) == KEPT
    assert any(name.startswith("base-") for name in kept)


def test_short_memory_is_refused_before_it_is_taken(
    graph: BuiltGraph, monkeypatch: pytest.MonkeyPatch
) -> None:
    def endless(_: ModelConfig) -> int:
        return 1 << 60

    monkeypatch.setattr(module, "truth_bytes", endless)
    with pytest.raises(DeviceError, match=r"webgpu .*\d+ MiB .*\d+ MiB"):
        check_of(graph).prepare({BASE: None})


def test_a_seven_billion_base_takes_little_to_be_judged(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(
        '{"model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,'
        '"num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "rope_theta": 1000000.0,'
        '"max_position_embeddings": 32768}'
    )
    assert truth_bytes(read_model_config(tmp_path)) < 1.5 * 2**30


def test_a_device_that_is_off_is_refused(graph: BuiltGraph, device: Device) -> None:
    check = check_of(graph)
    check.prepare({BASE: None})
    device.wrong = frozenset({BASE})
    with pytest.raises(DeviceError, match=r"webgpu .*the base .*0\.5 "):
        check.examine(device, (0, 1), BASE)


def test_a_device_that_fails_is_refused_without_its_own_words(
    graph: BuiltGraph, device: Device, caplog: pytest.LogCaptureFixture
) -> None:
    check = check_of(graph)
    check.prepare({BASE: None})
    device.fails = True
    with pytest.raises(DeviceError) as caught:
        check.examine(device, (0, 1), BASE)
    assert all(part in str(caught.value) for part in ("webgpu", "the base", "RuntimeError"))
    assert "DXGI_ERROR_DEVICE_REMOVED" in caplog.text


@pytest.fixture
def voices(tiny_adapters: dict[str, Path]) -> dict[str, Adapter]:
    return {name: read_manifest(folder) for name, folder in tiny_adapters.items()}


@pytest.fixture
def make_engine(tiny_base: Path, graph: BuiltGraph, device: Device) -> Callable[[], EmbeddedEngine]:
    return lambda: EmbeddedEngine(
        open_runner=lambda: device,
        shape=ModelShape.read(tiny_base),
        limits=LIMITS,
        tokenizer=Tokenizer.load(tiny_base),
        base_digest=DIGEST,
        vocabulary=graph.config.vocabulary,
        max_queue=16,
        check=check_of(graph),
    )


@pytest.mark.anyio
async def test_an_adapter_that_goes_wrong_on_the_device_is_refused_and_nothing_changes(
    make_engine: Callable[[], EmbeddedEngine], device: Device, voices: dict[str, Adapter]
) -> None:
    engine = make_engine()
    await engine.start()
    try:
        await engine.load(voices["en"])
        device.wrong = frozenset({voices["sv"].digest})
        with pytest.raises(AdapterRefusedError, match=r"sv.*the adapter .*webgpu .*0\.5"):
            await engine.load(voices["sv"])
        assert set(engine.state().resident) == {voices["en"].digest}
        device.wrong = frozenset()
        await engine.load(voices["sv"])
        assert set(engine.state().resident) == {voices["en"].digest, voices["sv"].digest}
    finally:
        await engine.close()


@pytest.mark.anyio
async def test_answers_under_way_are_not_changed_by_a_self_test(
    make_engine: Callable[[], EmbeddedEngine], voices: dict[str, Adapter]
) -> None:
    """Four streams hold every row that may decode while adapters come and go beside them."""
    engine = make_engine()
    await engine.start()
    prompts = [[1, *range(40 + n, 50 + n)] for n in range(4)]
    adapter_mix = alone(voices["en"])
    try:
        await engine.load(voices["en"])
        quiet = [await tokens(engine, ask(prompt, adapter_mix, max_tokens=40)) for prompt in prompts]

        async def again(prompt: list[int]) -> list[list[int]]:
            return [await tokens(engine, ask(prompt, adapter_mix, max_tokens=40)) for _ in range(4)]

        busy = [asyncio.create_task(again(prompt)) for prompt in prompts]
        loads = 0
        while not all(task.done() for task in busy):
            await engine.load(voices["sv"])
            await engine.unload(voices["sv"].digest)
            loads += 1
        assert [task.result() for task in busy] == [[answer] * 4 for answer in quiet]
        assert loads > 1
    finally:
        await engine.close()
