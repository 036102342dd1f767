"""Which device runs the graph, opening it there, and whether it computes what the CPU does.

`auto` goes on to the next device, and to the CPU in the end, where one does not come up, fails, has too
little memory or is wrong; a device that is asked for by name is refused instead.
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
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import EngineError
from server.metrics.engine_state import DeviceFallback, DeviceInfo

logger = logging.getLogger(__name__)
DeviceChoice = DeviceName | Literal["auto"]


@dataclass(frozen=True, slots=True)
class DevicePlan:
    """A device, the base's graph for it, and the memory that it is given."""

    provider: Provider
    graph: BuiltGraph
    limits: SchedulerLimits
    prompts: BuiltGraph | None = None
    """Of the CPU: the graph by which prompts are computed in bfloat16."""


@dataclass(frozen=True, slots=True)
class OpenedDevice:
    """Where the base runs, and what made it so."""

    place: DevicePlan
    open_runner: Callable[[], Runner]
    """Gives the runner, once; the CPU's is opened only then."""
    check: DeviceCheck | None
    """What judges each adapter that is loaded; None for the CPU."""
    info: DeviceInfo


def candidates(choice: DeviceChoice, available: Sequence[str]) -> list[Provider]:
    """The devices to try, best first: the one asked for, or all of those that ONNX Runtime has.

    `available` is what `onnxruntime.get_available_providers` says. Raises `FlavourError` where the device
    asked for is not among them.
    """
    if choice == "auto":
        return [provider for provider in PROVIDERS.values() if provider.ort in available]
    check_provider(PROVIDERS[choice], available, find_installed())
    return [PROVIDERS[choice]]


def dtype_on(provider: Provider, wanted: Dtype | None, choice: DeviceChoice) -> Dtype:
    """What a device computes in: what is wanted, or its first where nothing is or `auto` fell back on it.

    Raises `ValueError` where the one wanted is not for it.
    """
    if wanted is None or wanted in provider.dtypes:
        return wanted or provider.dtypes[0]
    if choice == "auto":
        return provider.dtypes[0]
    raise ValueError(f"dtype {wanted} is not for device {provider.name}; it has {', '.join(provider.dtypes)}")


def open_best(
    providers: Sequence[Provider],
    placed: Callable[[Provider], DevicePlan],
    threads: int | None,
    adapters: Callable[[], Mapping[str, AdapterWeights]],
) -> OpenedDevice:
    """The first of `providers` that works for the base and, where others are left to go on to, `adapters`.

    `placed` builds a device's graph and is asked only of devices that come up. Raises what it does, and
    `EngineError`, for the last of the providers.
    """
    fallback: DeviceFallback | None = None
    for provider in providers[:-1]:
        try:
            return _open(provider, placed, threads, adapters, fallback)
        except (EngineError, ValueError) as error:
            reason = error.reason if isinstance(error, DeviceError) else "memory"
            fallback = DeviceFallback(provider.name, reason, str(error))
            logger.warning("device %s is not used: %s", provider.name, error)
    return _open(providers[-1], placed, threads, dict, fallback)


def bring_up(provider: Provider) -> None:
    """Open the smallest of sessions on a device. Raises `DeviceError` where it does not come up."""
    shape = helper.make_tensor_value_info("x", TensorProto.FLOAT, [1])
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, [1])
    graph = helper.make_graph([helper.make_node("Add", ["x", "x"], ["y"])], "probe", [shape], [output])
    opset = helper.make_opsetid("", OPSET)
    model = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION)
    try:
        open_session(model.SerializeToString(), provider, {})
    except Exception as error:  # ONNX Runtime's own have no other common base, and pass on what drivers say
        raise DeviceError("absent", f"device {provider.name} does not come up: {_brief(error)}") from error


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
    # The CPU's part first: the device's memory is not taken yet.
    check.prepare({BASE: None, **judged})
    runner = open_device(place)
    try:
        _judge(runner, check, judged)
    except BaseException:
        runner.close()
        raise
    return OpenedDevice(place, lambda: runner, check, info_of(place, fallback))


def _judge(runner: Runner, check: DeviceCheck, adapters: Mapping[str, AdapterWeights]) -> None:
    """Judge a device with nothing on it, in its outermost rows."""
    rows = sorted({0, runner.rows - 1})
    check.examine(runner, rows, BASE)
    for digest, weights in adapters.items():
        runner.load(digest, weights)
        check.examine(runner, rows, digest)
        runner.unload(digest)


def info_of(place: DevicePlan, fallback: DeviceFallback | None) -> DeviceInfo:
    """What is told of a device that is in use."""
    provider, graph = place.provider, place.graph
    return DeviceInfo(provider.name, provider.ort, precision_of(graph.dtype, graph.quantize), fallback)


def open_cpu(place: DevicePlan, threads: int | None) -> CpuRunner:
    """The CPU's runner. Raises `EngineError` where it cannot be opened."""
    limits = place.limits
    try:
        prompts = None if place.prompts is None else BfloatPrefill(place.prompts, threads)
        return CpuRunner(place.graph, limits.rows, limits.context, threads, prompts=prompts)
    except (MemoryError, OSError) as error:
        raise EngineError(
            f"the engine cannot open the graph with {limits.rows} rows of {limits.context} tokens: {error}; "
            "lower max_num_seqs or max_model_len, or turn prefix_caching off"
        ) from error


def open_device(place: DevicePlan) -> DeviceRunner:
    """A device's runner. Raises `DeviceError` where it cannot be opened."""
    limits, name = place.limits, place.provider.name
    try:
        chunk = limits.max_num_batched_tokens
        return DeviceRunner(place.graph, place.provider, limits.rows, limits.context, chunk)
    except MemoryError as error:
        raise DeviceError("memory", f"device {name} has too little memory: {_brief(error)}") from error
    except Exception as error:  # as in `bring_up`
        raise DeviceError("failed", f"device {name} cannot be opened: {_brief(error)}") from error


def _brief(error: Exception) -> str:
    """The first line of what a driver says, without the places in its sources."""
    lines = str(error).strip().splitlines() or [type(error).__name__]
    return lines[0][:300]
