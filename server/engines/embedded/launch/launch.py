"""Assembles the embedded engine from a base model's graph, its memory plan, and the runner of its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from pathlib import Path

import onnxruntime as ort

from adapters.files.full import FULL
from adapters.files.hashes import HashCache
from adapters.lora.manifest import Adapter
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.base import StepObserver
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.launch.device_choice import DevicePlan, candidates, dtype_on, open_best
from server.engines.embedded.launch.memory_fit import fit
from server.engines.embedded.launch.memory_plan import adapter_bytes
from server.engines.embedded.launch.options import EmbeddedOptions, plan
from server.engines.embedded.model.cache import method_of, prepare
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.families.lookup import read_model_config
from server.engines.embedded.model.variants import PORTABLE, VARIANTS
from server.engines.embedded.runners.available import available_memory
from server.engines.embedded.runners.cpu.bfloat16 import require_bfloat16
from server.engines.embedded.runners.device.hardware import largest_memory
from server.engines.embedded.runners.device.plan import device_budget
from server.engines.embedded.runners.device.providers import Provider
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import EngineError
from server.text.tokenizer import Tokenizer


def embedded_engine(
    base: Path,
    base_digest: str,
    tokenizer: Tokenizer,
    options: EmbeddedOptions,
    *,
    observer: StepObserver | None = None,
    progress: Callable[[int, int], None] | None = None,
    adapters: Sequence[Adapter] = (),
    say: Callable[[str], None] | None = None,
) -> EmbeddedEngine:
    """Create an engine for the checkpoint in the folder `base`. The graph is built on disk, but the engine is
    not started.

    `say` receives the memory plan line by line. While the graph is built, `progress` is called with (bytes
    done, bytes in all); if the graph exists already, it is never called. A GPU or NPU is opened here, and its
    logits are compared with the CPU's for the base model; with `--device auto`, for `adapters` too. Raises
    `EngineError` if the engine does not support the checkpoint or an option, memory is too small, or a device
    that the operator named cannot be used.
    """

    def placed(provider: Provider) -> DevicePlan:
        dtype = dtype_on(provider, options.dtype, options.device)
        limits = plan(config, options, provider)
        variant, graphs = VARIANTS[provider.variant], options.graphs
        if not provider.is_device:
            limits = _fit_limits(config, options, adapters, say)
        else:
            method = method_of(options.quantize, variant)
            size = plan_graph(config, variant, dtype, method).size
            for line in device_budget(config, limits, dtype, size, largest_memory()):
                if say is not None:
                    say(line)
        graph = prepare(base, graphs, base_digest, options.quantize, variant, dtype, progress)
        if options.prefill_dtype == "fp32":
            return DevicePlan(provider, graph, limits)
        prompts = prepare(base, graphs, base_digest, "none", PORTABLE, "fp32", progress)
        return DevicePlan(provider, graph, limits, prompts)

    try:
        if options.prefill_dtype == "bf16" and options.device != "cpu":
            raise ValueError(
                f"prefill_dtype bf16 works on the CPU only, but device is {options.device}; set device to "
                "cpu, or prefill_dtype to fp32"
            )
        if options.prefill_dtype == "bf16":
            require_bfloat16()
        config = read_model_config(base)
        providers = candidates(options.device, ort.get_available_providers())
        opened = open_best(
            providers, placed, options.threads, lambda: _readable(adapters[: options.max_adapters], base)
        )
    except ValueError as error:
        raise EngineError(str(error)) from error
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(options.graphs.parent):
            raise
        raise _unkept(options.graphs, error) from error
    return EmbeddedEngine(
        open_runner=opened.open_runner,
        shape=ModelShape.read(base),
        limits=opened.place.limits,
        tokenizer=tokenizer,
        base_digest=base_digest,
        vocabulary=config.vocabulary,
        max_queue=options.max_queue,
        max_adapters=options.max_adapters,
        max_cpu_adapters=options.max_cpu_adapters,
        hashes=HashCache(options.hashes) if options.hashes is not None else None,
        observer=observer,
        check=opened.check,
        device=opened.info,
    )


def _unkept(graphs: Path, error: OSError) -> EngineError:
    """Return the error to raise if a built graph cannot be saved in the folder `graphs`."""
    why = error.strerror or str(error)
    space = "free some space, or " if error.errno in FULL else ""
    return EngineError(
        f"the ONNX graph of the base cannot be saved in {graphs}: {why[:1].lower()}{why[1:]}; "
        f"{space}choose a writable folder with --home"
    )


def _readable(adapters: Iterable[Adapter], base: Path) -> dict[str, AdapterWeights]:
    """Read the weights of `adapters`, by digest.

    Unreadable adapters are left out; loading them later raises the error.
    """
    shape = ModelShape.read(base)
    found: dict[str, AdapterWeights] = {}
    for adapter in adapters:
        with suppress(ValueError, OSError):
            found[adapter.digest] = read_adapter(adapter.path, shape, digest=adapter.digest)
    return found


def _fit_limits(
    config: ModelConfig,
    options: EmbeddedOptions,
    adapters: Sequence[Adapter],
    say: Callable[[str], None] | None,
) -> SchedulerLimits:
    """Choose scheduler limits that fit the free memory, and pass the memory plan to `say`.

    Raises `ValueError` if none fit.
    """
    most = max(options.max_adapters, options.max_cpu_adapters or 0)
    largest = sorted(adapters, key=lambda adapter: adapter_bytes(config, adapter), reverse=True)[:most]
    limits, memory = fit(config, options, largest, lambda changed: plan(config, changed), available_memory())
    if say is not None:
        for line in memory.lines():
            say(line)
    return limits
