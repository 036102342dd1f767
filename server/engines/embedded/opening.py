"""Which device runs the graph, and opening it there."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Literal

from server.engines.base import EngineError
from server.engines.embedded.cache import BuiltGraph
from server.engines.embedded.cpu import CpuRunner
from server.engines.embedded.device import DeviceRunner
from server.engines.embedded.graph import Dtype
from server.engines.embedded.limits import Limits
from server.engines.embedded.providers import PROVIDERS, Device, Provider
from server.engines.embedded.runner import Runner

logger = logging.getLogger(__name__)
DeviceChoice = Device | Literal["auto"]


def candidates(choice: DeviceChoice, available: Sequence[str]) -> list[Provider]:
    """The devices to try, best first: the one asked for, or all of those that ONNX Runtime has.

    `available` is what `onnxruntime.get_available_providers` says. Raises `EngineError` where the device
    asked for is not there.
    """
    if choice == "auto":
        return [provider for provider in PROVIDERS.values() if provider.ort in available]
    provider = PROVIDERS[choice]
    if provider.ort not in available:
        raise EngineError(
            f"device {choice} asks for {provider.ort}, which the installed ONNX Runtime lacks (it has "
            f"{', '.join(available)}); it comes with {provider.distribution}"
        )
    return [provider]


def dtype_on(provider: Provider, wanted: Dtype | None, choice: DeviceChoice) -> Dtype:
    """What a device computes in: what is wanted, or its first where nothing is or `auto` fell back on it.

    Raises `ValueError` where the one wanted is not for it.
    """
    if wanted is None or wanted in provider.dtypes:
        return wanted or provider.dtypes[0]
    if choice == "auto":
        return provider.dtypes[0]
    raise ValueError(f"dtype {wanted} is not for device {provider.name}; it has {', '.join(provider.dtypes)}")


def open_first(providers: Sequence[Provider], open_on: Callable[[Provider], Runner]) -> Runner:
    """The runner of the first of `providers` that opens. Raises what the last one does."""
    for provider in providers[:-1]:
        try:
            return open_on(provider)
        except EngineError as error:
            logger.warning("device %s is not used: %s", provider.name, error)
    return open_on(providers[-1])


def open_runner(graph: BuiltGraph, provider: Provider, limits: Limits, threads: int | None) -> Runner:
    """The runner of a device, ready to run. Raises `EngineError` where it cannot be opened."""
    try:
        if provider.variant == "gqa":
            return CpuRunner(graph, limits.rows, limits.context, threads)
        return _open_device(graph, provider, limits, threads)
    except (MemoryError, OSError) as error:
        raise EngineError(
            f"the engine cannot open the graph with {limits.rows} rows of {limits.context} tokens: {error}; "
            "lower max_num_seqs or max_model_len, or turn prefix_caching off"
        ) from error


def _open_device(graph: BuiltGraph, provider: Provider, limits: Limits, threads: int | None) -> DeviceRunner:
    try:
        chunk = limits.max_num_batched_tokens
        return DeviceRunner(graph, provider, limits.rows, limits.context, chunk, threads)
    except (
        Exception
    ) as error:  # ONNX Runtime's own have no common base but this, and pass on what drivers say
        raise EngineError(f"device {provider.name} cannot be opened: {error}") from error
