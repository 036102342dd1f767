"""Puts the embedded engine together: a base's graph, the plan of its memory, the runner of its device."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import onnxruntime as ort

from adapters.lora.manifest import Adapter
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.base import EngineError, StepObserver
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.launch.device_choice import DeviceChoice, Place, candidates, dtype_on, open_best
from server.engines.embedded.launch.memory_fit import fit
from server.engines.embedded.model.cache import method_of, prepare
from server.engines.embedded.model.config import ModelConfig, read_config
from server.engines.embedded.model.decoder import Dtype, plan_graph
from server.engines.embedded.runners.available import available_memory
from server.engines.embedded.runners.cpu.bfloat16 import require_bfloat16
from server.engines.embedded.runners.device.hardware import largest_memory
from server.engines.embedded.runners.device.plan import device_budget, device_limits
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider
from server.engines.embedded.scheduling.limits import PAGE, Limits
from server.text.tokenizer import Tokenizer

DEFAULT_NUM_SEQS = 32
DEFAULT_BATCHED_TOKENS = 512
KV_SHARE = 0.25
"""Part of the free memory that the KV cache may take where no budget is given."""
KV_MOST = 8 << 30
"""Bytes it takes at most where no budget is given."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedOptions:
    """What an operator decides."""

    graphs: Path
    """Folder of built graphs."""
    device: DeviceChoice = "cpu"
    dtype: Dtype | None = None
    """What a device computes in; None takes the device's own first choice."""
    prefill_dtype: Literal["fp32", "bf16"] = "fp32"
    """What the CPU computes prompts in; bf16 through OpenVINO."""
    quantize: str = "none"
    threads: int | None = None
    max_num_seqs: int = DEFAULT_NUM_SEQS
    max_num_batched_tokens: int = DEFAULT_BATCHED_TOKENS
    prefill_chunk: int | None = None
    max_model_len: int | None = None
    kv_tokens: int | None = None
    """KV budget in tokens; goes before `kv_bytes`."""
    kv_bytes: int | None = None
    """KV budget in bytes; None takes a part of the free memory."""
    max_queue: int = 256
    max_adapters: int = 64
    """Adapters that can be resident at once."""
    prefix_caching: bool = True


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
    """An engine for the checkpoint in `base`, its graph built, not yet started.

    `progress` is told (bytes done, bytes in all) while the graph is built; it is not called where the graph
    is already there; `say` is told the memory plan before that. A device other than the CPU is opened,
    and judged by the CPU's logits of the base and, where the choice is `auto`, of `adapters`. Raises
    `EngineError` for a checkpoint this engine cannot run, options that do not fit it or more than the memory
    holds, or a device that is asked for by name and cannot be used.
    """

    def placed(provider: Provider) -> Place:
        dtype = dtype_on(provider, options.dtype, options.device)
        limits = plan(config, options, provider)
        if provider.variant == "gqa":
            limits = _fitted(config, options, adapters, say)
        else:
            method = method_of(options.quantize, provider.variant)
            size = plan_graph(config, provider.variant, dtype, method).size
            for line in device_budget(config, limits, dtype, size, largest_memory()):
                if say is not None:
                    say(line)
        variant, graphs = provider.variant, options.graphs
        graph = prepare(base, graphs, base_digest, options.quantize, variant, dtype, progress)
        if options.prefill_dtype == "fp32":
            return Place(provider, graph, limits)
        prompts = prepare(base, graphs, base_digest, "none", "prim", "fp32", progress)
        return Place(provider, graph, limits, prompts)

    try:
        if options.prefill_dtype == "bf16" and options.device != "cpu":
            raise ValueError(
                f"prefill_dtype bf16 is the CPU's, and device is {options.device}; leave one of them out"
            )
        if options.prefill_dtype == "bf16":
            require_bfloat16()
        config = read_config(base)
        providers = candidates(options.device, ort.get_available_providers())
        opened = open_best(providers, placed, options.threads, lambda: _readable(adapters, base))
    except ValueError as error:
        raise EngineError(str(error)) from error
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(options.graphs.parent):
            raise
        raise EngineError(
            f"the graph cannot be kept in {options.graphs}: {(error.strerror or str(error)).lower()}; "
            "give a folder that can be written with --home"
        ) from error
    return EmbeddedEngine(
        open_runner=opened.open_runner,
        shape=ModelShape.read(base),
        limits=opened.place.limits,
        tokenizer=tokenizer,
        base_digest=base_digest,
        vocabulary=config.vocabulary,
        max_queue=options.max_queue,
        max_adapters=options.max_adapters,
        observer=observer,
        check=opened.check,
        device=opened.info,
    )


def _readable(adapters: Iterable[Adapter], base: Path) -> dict[str, AdapterWeights]:
    """Adapters by digest, without those that the engine will refuse when it is to load them."""
    shape = ModelShape.read(base)
    found: dict[str, AdapterWeights] = {}
    for adapter in adapters:
        with suppress(ValueError, OSError):
            found[adapter.digest] = read_adapter(adapter.path, shape, digest=adapter.digest)
    return found


def _fitted(
    config: ModelConfig,
    options: EmbeddedOptions,
    adapters: Sequence[Adapter],
    say: Callable[[str], None] | None,
) -> Limits:
    """The limits that fit the memory there is, told part by part. Raises `ValueError` where none do."""
    limits, memory = fit(config, options, adapters, lambda changed: plan(config, changed), available_memory())
    if say is not None:
        for line in memory.lines():
            say(line)
    return limits


def plan(config: ModelConfig, options: EmbeddedOptions, provider: Provider = PROVIDERS["cpu"]) -> Limits:
    """Rows, context and KV budget. Raises `ValueError` where the budget holds no request."""
    context = config.context if options.max_model_len is None else options.max_model_len
    if context > config.context:
        raise ValueError(
            f"max_model_len {context} is more than the {config.context} tokens this base was made for"
        )
    if provider.variant == "prim":
        return device_limits(
            config,
            dtype_on(provider, options.dtype, options.device),
            context=context,
            max_num_seqs=options.max_num_seqs,
            max_num_batched_tokens=options.max_num_batched_tokens,
            prefill_chunk=options.prefill_chunk or options.max_num_batched_tokens,
            prefix_caching=options.prefix_caching,
            kv_bytes=options.kv_bytes,
            kv_tokens=options.kv_tokens,
        )
    token_bytes = config.layers * 2 * config.kv_width * 4
    rows = 3 * options.max_num_seqs if options.prefix_caching else options.max_num_seqs
    kv_tokens = options.kv_tokens
    if kv_tokens is None:
        budget = options.kv_bytes
        if budget is None:
            budget = min(KV_MOST, int(available_memory() * KV_SHARE))
        kv_tokens = budget // token_bytes
    kv_tokens = min(kv_tokens, rows * context) // PAGE * PAGE
    if kv_tokens < PAGE:
        raise ValueError(
            f"kv_cache_memory holds {kv_tokens} tokens of {token_bytes} bytes; give it at least "
            f"{PAGE * token_bytes} bytes, or {context * token_bytes} for the whole context"
        )
    return Limits(
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        rows=rows,
        context=context,
        kv_tokens=kv_tokens,
        prefill_chunk=options.prefill_chunk or options.max_num_batched_tokens,
        prefix_caching=options.prefix_caching,
    )
