"""Which device the base ends up on. The one here is a device in all but name: `DeviceRunner` on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from unittest.mock import Mock

import pytest

from adapters.lora.manifest import read_manifest
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.launch import device_choice
from server.engines.embedded.launch.device_choice import (
    DevicePlan,
    OpenedDevice,
    bring_up,
    candidates,
    open_best,
)
from server.engines.embedded.model.builder import DATA_FILE
from server.engines.embedded.model.cache import prepare
from server.engines.embedded.model.variants import VARIANTS
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.device.selftest import DeviceError
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import EngineError
from server.text.tokenizer import Tokenizer
from tests.server.engines.asking import alone, ask, tokens
from tests.server.engines.embedded.runners.windowsml.machine import recorded_provider, windows

DIGEST = "sha256:" + "0" * 64
CPU = PROVIDERS["cpu"]
DEVICE = replace(PROVIDERS["webgpu"], ort=CPU.ort, memory=CPU.memory, dtypes=("fp32",))
"""Where tests run, no other provider is there."""
GONE = replace(PROVIDERS["webgpu"], ort="NoSuchExecutionProvider")
LIMITS = SchedulerLimits(
    max_num_seqs=2,
    max_num_batched_tokens=16,
    rows=3,
    context=64,
    kv_tokens=192,
    prefill_chunk=16,
    prefix_caching=True,
)

Placed = Callable[[Provider], DevicePlan]


@pytest.fixture
def placed(tiny_base: Path, tmp_path: Path) -> Placed:
    def place(provider: Provider) -> DevicePlan:
        graph = prepare(tiny_base, tmp_path, DIGEST, variant=VARIANTS[provider.variant])
        return DevicePlan(provider, graph, LIMITS)

    return place


@pytest.fixture
def weights(tiny_base: Path, tiny_adapters: dict[str, Path]) -> dict[str, AdapterWeights]:
    shape = ModelShape.read(tiny_base)
    return {name: read_adapter(folder, shape) for name, folder in tiny_adapters.items()}


def opened(
    placed: Placed, *providers: Provider, adapters: Mapping[str, AdapterWeights] | None = None
) -> OpenedDevice:
    return open_best(providers, placed, 1, lambda: adapters or {})


def reason(found: OpenedDevice) -> str:
    assert found.place.provider is CPU
    assert found.check is None
    assert found.info.name == "cpu"
    assert found.info.fallback is not None
    assert found.info.fallback.device == "webgpu"
    assert isinstance(found.open_runner(), CpuRunner)
    return f"{found.info.fallback.reason}: {found.info.fallback.message}"


def test_a_device_that_works_is_taken(placed: Placed, weights: dict[str, AdapterWeights]) -> None:
    found = opened(placed, DEVICE, CPU, adapters=weights)
    assert (found.info.name, found.info.precision, found.info.fallback) == ("webgpu", "fp32", None)
    assert isinstance(found.open_runner(), DeviceRunner)
    assert found.check is not None


def test_the_cpu_alone_is_opened_when_it_is_asked_for(placed: Placed) -> None:
    found = opened(placed, CPU)
    assert (found.info.name, found.info.fallback, found.check) == ("cpu", None, None)


def test_a_device_that_does_not_come_up_costs_no_graph(placed: Placed) -> None:
    asked: list[str] = []

    def watched(provider: Provider) -> DevicePlan:
        asked.append(provider.name)
        return placed(provider)

    with pytest.warns(UserWarning, match="NoSuchExecutionProvider"):
        found = opened(watched, GONE, CPU)
    assert reason(found).startswith("absent: device webgpu ")
    assert asked == ["cpu"]


def test_bringing_up_needs_more_than_a_name() -> None:
    bring_up(DEVICE)
    with (
        pytest.warns(UserWarning, match="NoSuchExecutionProvider"),
        pytest.raises(DeviceError, match="webgpu"),
    ):
        bring_up(GONE)


def test_by_its_name_alone_it_is_refused(placed: Placed) -> None:
    with (
        pytest.warns(UserWarning, match="NoSuchExecutionProvider"),
        pytest.raises(DeviceError, match="webgpu"),
    ):
        opened(placed, GONE)


def spoil(place: DevicePlan) -> None:
    """Flip the weights on disk, as a failing disk would, after the CPU's logits were kept."""
    data = place.graph.folder / DATA_FILE
    content = bytearray(data.read_bytes())
    content[: 1 << 14] = bytes(value ^ 0x80 for value in content[: 1 << 14])
    data.write_bytes(content)


def test_logits_that_are_not_the_cpus_are_refused(placed: Placed, caplog: pytest.LogCaptureFixture) -> None:
    opened(placed, DEVICE)
    spoil(placed(DEVICE))
    with pytest.raises(DeviceError, match="the base on the device webgpu"):
        opened(placed, DEVICE)
    assert reason(opened(placed, DEVICE, CPU)).startswith("logits: ")
    assert "webgpu" in caplog.text


def test_an_adapter_that_goes_wrong_leads_auto_to_the_cpu(
    placed: Placed, weights: dict[str, AdapterWeights]
) -> None:
    opened(placed, DEVICE, CPU, adapters={"sha256:a": weights["en"]})
    wrong = {"sha256:a": weights["sv"]}
    found = opened(placed, DEVICE, CPU, adapters=wrong)
    assert reason(found).startswith("logits: ")
    assert opened(placed, DEVICE, adapters=wrong).info.name == "webgpu", "its load will refuse it, by name"


def test_too_little_memory_leads_auto_to_the_cpu(placed: Placed) -> None:
    def short(provider: Provider) -> DevicePlan:
        if provider is DEVICE:
            raise ValueError("kv_cache_memory of 5 bytes holds no row")
        return placed(provider)

    assert reason(opened(short, DEVICE, CPU)) == "memory: kv_cache_memory of 5 bytes holds no row"
    with pytest.raises(ValueError, match="kv_cache_memory"):
        opened(short, DEVICE)


def test_a_driver_that_fails_leads_auto_to_the_cpu(placed: Placed, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object, **__: object) -> None:
        raise RuntimeError("DXGI_ERROR_DEVICE_HUNG\n at d3d12.cpp:120")

    monkeypatch.setattr(DeviceRunner, "prefill", fail)
    assert (
        reason(opened(placed, DEVICE, CPU))
        == "failed: the device webgpu failed to compute the base: RuntimeError"
    )
    monkeypatch.setattr(DeviceRunner, "__init__", fail)
    found = reason(opened(placed, DEVICE, CPU))
    assert found.startswith("failed: device webgpu ")
    assert "DXGI_ERROR_DEVICE_HUNG;" in found


def test_auto_tries_what_there_is_and_a_name_what_it_names() -> None:
    every = [provider.ort for provider in PROVIDERS.values() if provider.ort]
    assert [provider.name for provider in candidates("auto", every)] == ["directml", "webgpu", "cpu"]
    assert candidates("auto", [CPU.ort]) == [CPU]
    assert candidates("webgpu", every) == [PROVIDERS["webgpu"]]
    with pytest.raises(EngineError, match=r"--device webgpu .*onnxruntime-webgpu"):
        candidates("webgpu", [CPU.ort])


def test_what_windows_ml_brings_is_tried_first_but_for_the_cpu(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with windows(tmp_path / "machine.json", monkeypatch) as machine:
        machine.offer(recorded_provider(CPU.ort), recorded_provider("QNNExecutionProvider", "NotPresent"))
        assert [(found.name, found.ort) for found in candidates("windowsml", [CPU.ort])] == [
            ("windowsml", CPU.ort)
        ]
        assert candidates("auto", [CPU.ort]) == [CPU]
        gpu = replace(PROVIDERS["windowsml"], ort="QNNExecutionProvider", hardware="gpu")
        monkeypatch.setattr(device_choice, "register_present", Mock(return_value=[gpu]))
        assert candidates("auto", [CPU.ort, "DmlExecutionProvider"]) == [gpu, PROVIDERS["directml"], CPU]
        assert machine.downloads == []


def test_a_provider_of_the_catalogue_passes_the_same_self_test(
    placed: Placed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with windows(tmp_path / "machine.json", monkeypatch) as machine:
        machine.offer(recorded_provider(CPU.ort))
        found = [replace(one, dtypes=("fp32",)) for one in candidates("windowsml", [CPU.ort])]
    taken = opened(placed, *found)
    assert (taken.info.name, taken.info.provider) == ("windowsml", CPU.ort)
    assert taken.check is not None
    taken.open_runner().close()
    spoil(placed(found[0]))
    with pytest.raises(DeviceError) as caught:
        opened(placed, *found)
    assert caught.value.reason == "logits"
    assert opened(placed, *found, CPU).info.fallback is not None


@pytest.mark.anyio
async def test_an_engine_on_a_device_judges_what_it_loads(
    placed: Placed, tiny_base: Path, tiny_adapters: dict[str, Path]
) -> None:
    """The device's answers are those of the CPU, with adapters that were judged as they were loaded."""
    answers: list[list[int]] = []
    for provider in (DEVICE, CPU):
        found = opened(placed, provider)
        engine = EmbeddedEngine(
            open_runner=found.open_runner,
            shape=ModelShape.read(tiny_base),
            limits=LIMITS,
            tokenizer=Tokenizer.load(tiny_base),
            base_digest=DIGEST,
            vocabulary=found.place.graph.config.vocabulary,
            max_queue=4,
            check=found.check,
            device=found.info,
        )
        await engine.start()
        try:
            voices = [read_manifest(folder) for folder in tiny_adapters.values()]
            for voice in voices:
                await engine.load(voice)
            questions = [ask([1, *range(60, 70)], alone(voice)) for voice in voices]
            answers += [await tokens(engine, question) for question in questions]
            assert engine.info.device == found.info
        finally:
            await engine.close()
    half = len(answers) // 2
    assert answers[:half] == answers[half:]
