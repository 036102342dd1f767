"""Puts the embedded engine together: a base's graph, the plan of its memory, the runner of its device."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort
import psutil

from adapters.weights import ModelShape
from server.engines.base import EngineError, StepObserver
from server.engines.embedded.cache import BuiltGraph, prepare
from server.engines.embedded.config import ModelConfig, read_config
from server.engines.embedded.device_plan import device_limits
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.graph import Dtype
from server.engines.embedded.limits import PAGE, Limits
from server.engines.embedded.opening import DeviceChoice, candidates, dtype_on, open_first, open_runner
from server.engines.embedded.providers import PROVIDERS, Provider
from server.engines.embedded.runner import Runner
from server.tokens import Tokenizer

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
) -> EmbeddedEngine:
    """An engine for the checkpoint in `base`, its graph built, not yet started.

    `progress` is told (bytes done, bytes in all) while the graph is built; it is not called where the graph
    is already there. Raises `EngineError` for a checkpoint this engine cannot run or options that do not
    fit it.
    """
    providers = candidates(options.device, ort.get_available_providers())
    first = providers[0]

    def built(provider: Provider) -> BuiltGraph:
        dtype = dtype_on(provider, options.dtype, options.device)
        variant, graphs = provider.variant, options.graphs
        return prepare(base, graphs, base_digest, options.quantize, variant, dtype, progress)

    try:
        config = read_config(base)
        limits = plan(config, options, first)
        graph = built(first)
    except ValueError as error:
        raise EngineError(str(error)) from error
    except OSError as error:
        if error.filename is None or not Path(error.filename).is_relative_to(options.graphs.parent):
            raise
        raise EngineError(
            f"the graph cannot be kept in {options.graphs}: {(error.strerror or str(error)).lower()}; "
            "give a folder that can be written with --home"
        ) from error

    def open_on(provider: Provider) -> Runner:
        chosen = graph if provider is first else built(provider)
        return open_runner(chosen, provider, limits, options.threads)

    return EmbeddedEngine(
        open_runner=lambda: open_first(providers, open_on),
        shape=ModelShape.read(base),
        limits=limits,
        tokenizer=tokenizer,
        base_digest=base_digest,
        vocabulary=config.vocabulary,
        max_queue=options.max_queue,
        max_adapters=options.max_adapters,
        observer=observer,
    )


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
            budget = min(KV_MOST, int(psutil.virtual_memory().available * KV_SHARE))
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
