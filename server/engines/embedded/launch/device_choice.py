"""Chooses the device that runs the ONNX graph, opens it, and compares its logits with the CPU's.

A device is unusable if it does not start, fails in a run, lacks memory or computes wrong logits. With
`--device auto`, the engine then tries the next device, and the CPU last. If the operator named the device, an
error is raised instead.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from onnx import TensorProto, helper

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.plan import IR_VERSION, OPSET, Dtype
from server.engines.embedded.runners.cpu.bfloat16 import BfloatPrefill
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.device.flavours import check_provider, find_installed
from server.engines.embedded.runners.device.providers import PROVIDERS, DeviceName, Provider
from server.engines.embedded.runners.device.reference_logits import BASE, DeviceCheck
from server.engines.embedded.runners.device.runner import DeviceRunner
from server.engines.embedded.runners.device.selftest import DeviceError, precision_of
from server.engines.embedded.runners.device.sessions import open_session
from server.engines.embedded.runners.protocol import Runner
from server.engines.embedded.runners.windowsml.catalogue import CatalogueError, open_catalogue
from server.engines.embedded.runners.windowsml.registration import register_present
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import EngineError, first_line
from server.metrics.engine_state import DeviceFallback, DeviceInfo

logger = logging.getLogger(__name__)
DeviceChoice = DeviceName | Literal["auto"]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device, the base model's graph built for this device, and scheduler limits that fit the device's
    memory.
    """

    provider: Provider
    graph: BuiltGraph
    limits: SchedulerLimits
    prompts: BuiltGraph | None = None
    """The base model's graph for bfloat16 prefill with OpenVINO, on the CPU only; None if prompts are
    computed in float32.
    """


@dataclass(frozen=True, slots=True)
class OpenedDevice:
    """The device that was chosen for a base model; `open_runner` returns its runner."""

    place: DevicePlan
    open_runner: Callable[[], Runner]
    """Returns the runner; call it once. The call opens the CPU's runner; the runner of any other device is
    open already.
    """
    check: DeviceCheck | None
    """Compares the device's logits with the CPU's when an adapter is loaded. None if the device is the
    CPU.
    """
    info: DeviceInfo


def candidates(choice: DeviceChoice, available: Sequence[str]) -> list[Provider]:
    """List the devices to try, best first.

    For `auto`, the list has all devices of ONNX Runtime and Windows ML. `available` is the result of
    `onnxruntime.get_available_providers()`. Raises `FlavourError` or `CatalogueError` if the operator named a
    device that is not installed. Downloads nothing.
    """
    if choice == "auto":
        built_in = [provider for provider in PROVIDERS.values() if provider.ort in available]
        return [*_registered_devices(), *built_in]
    if choice == "windowsml":
        return register_present(open_catalogue())
    check_provider(PROVIDERS[choice], available, find_installed())
    return [PROVIDERS[choice]]


def _registered_devices() -> list[Provider]:
    """Return the GPUs and NPUs of Windows ML. CPUs are left out, since the engine has its own CPU runner."""
    try:
        found = register_present(open_catalogue())
    except CatalogueError as error:
        logger.debug("Windows ML cannot be used here, so its devices are skipped: %s", error)
        return []
    return [provider for provider in found if provider.hardware != "cpu"]


def dtype_on(provider: Provider, wanted: Dtype | None, choice: DeviceChoice) -> Dtype:
    """Choose the number format (fp32 or fp16) in which a device computes.

    This is `wanted`, or the device's default if `wanted` is None. If the device does not support `wanted`,
    `auto` falls back to the default. For a device that the operator named, `ValueError` is raised.
    """
    if wanted is None or wanted in provider.dtypes:
        return wanted or provider.dtypes[0]
    if choice == "auto":
        return provider.dtypes[0]
    raise ValueError(
        f"device {provider.name} does not support dtype {wanted}; set dtype to {' or '.join(provider.dtypes)}"
    )


def open_best(
    providers: Sequence[Provider],
    placed: Callable[[Provider], DevicePlan],
    threads: int | None,
    adapters: Callable[[], Mapping[str, AdapterWeights]],
) -> OpenedDevice:
    """Open the first device of `providers` that passes the self-test.

    The self-test runs the base model, and also each of `adapters` unless the device is the last of the list.
    `placed` builds the graph for a device that has started. If the last device fails, its error is raised:
    `EngineError`, or what `placed` raises.
    """
    fallback: DeviceFallback | None = None
    for provider in providers[:-1]:
        try:
            return _open(provider, placed, threads, adapters, fallback)
        except (EngineError, ValueError) as error:
            reason = error.reason if isinstance(error, DeviceError) else "memory"
            fallback = DeviceFallback(provider.name, reason, str(error))
            logger.warning(
                "device %s cannot be used, so the server tries the next device: %s", provider.name, error
            )
    return _open(providers[-1], placed, threads, dict, fallback)


def bring_up(provider: Provider) -> None:
    """Open a minimal ONNX session on a device, to see if it starts.

    Raises `DeviceError` if it does not start.
    """
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [shape], [output])
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    try:
        open_session(model.SerializeToString(), provider, {})
    except Exception as error:  # ONNX Runtime's own have no other common base, and pass on what drivers say
        raise DeviceError(
            "absent",
            f"device {provider.name} failed to start: {first_line(error)}; update its driver, or use another "
            "device",
        ) from error


def _open(
    provider: Provider,
    placed: Callable[[Provider], DevicePlan],
    threads: int | None,
    adapters: Callable[[], Mapping[str, AdapterWeights]],
    fallback: DeviceFallback | None,
) -> OpenedDevice:
    if not provider.is_device:
        place = placed(provider)
        return OpenedDevice(place, lambda: open_cpu(place, threads), None, info_of(place, fallback))
    bring_up(provider)
    place = placed(provider)
    limits = place.limits
    check = DeviceCheck(place.graph, provider.name, limits.rows, limits.context, threads)
    judged = adapters()
    # Compute the CPU's logits before the device takes memory.
    check.prepare({BASE: None, **judged})
    runner = open_device(place)
    try:
        _judge(runner, check, judged)
    except BaseException:
        runner.close()
        raise
    return OpenedDevice(place, lambda: runner, check, info_of(place, fallback))


def _judge(runner: Runner, check: DeviceCheck, adapters: Mapping[str, AdapterWeights]) -> None:
    """Compare the device's logits with the CPU's for the base model and each adapter, in the first and last
    KV cache slot.

    The device must be idle. Raises `DeviceError` if a comparison fails.
    """
    rows = sorted({0, runner.rows - 1})
    check.examine(runner, rows, BASE)
    for digest, weights in adapters.items():
        runner.load(digest, weights)
        check.examine(runner, rows, digest)
        runner.unload(digest)


def info_of(place: DevicePlan, fallback: DeviceFallback | None) -> DeviceInfo:
    """Return the device's name, execution provider, precision and fallback, as the server reports them."""
    provider, graph = place.provider, place.graph
    return DeviceInfo(provider.name, provider.ort, precision_of(graph.dtype, graph.quantize), fallback)


def open_cpu(place: DevicePlan, threads: int | None) -> CpuRunner:
    """Open the runner for the CPU.

    Raises `EngineError` if memory is too small or the graph cannot be read.
    """
    limits = place.limits
    try:
        prompts = None if place.prompts is None else BfloatPrefill(place.prompts, threads)
        return CpuRunner(place.graph, limits.rows, limits.context, threads, prompts=prompts)
    except (MemoryError, OSError) as error:
        raise EngineError(
            f"the embedded engine cannot open the base model's graph with a KV cache for {limits.rows} "
            f"sequences of {limits.context} tokens: {error}; lower max_num_seqs or max_model_len, or turn "
            "prefix_caching off"
        ) from error


def open_device(place: DevicePlan) -> DeviceRunner:
    """Open the runner of a GPU or NPU. Raises `DeviceError` if memory is too small or the device fails."""
    limits, name = place.limits, place.provider.name
    try:
        chunk = limits.max_num_batched_tokens
        return DeviceRunner(place.graph, place.provider, limits.rows, limits.context, chunk)
    except MemoryError as error:
        raise DeviceError(
            "memory",
            f"device {name} does not have enough memory for the base model: {first_line(error)}; lower "
            "kv_cache_memory or max_model_len",
        ) from error
    except Exception as error:  # as in `bring_up`
        raise DeviceError(
            "failed",
            f"device {name} cannot open the base model's graph: {first_line(error)}; update its driver, or "
            "use another device",
        ) from error
