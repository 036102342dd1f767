"""The operator's options for the embedded engine, and the scheduler limits that follow from them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from server.engines.embedded.launch.device_choice import DeviceChoice, dtype_on
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.runners.available import available_memory
from server.engines.embedded.runners.device.plan import device_limits
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider
from server.engines.embedded.scheduling.limits import PAGE, SchedulerLimits, in_pages

DEFAULT_NUM_SEQS = 32
DEFAULT_ADAPTERS = 64
DEFAULT_BATCHED_TOKENS = 512
KV_SHARE = 0.25
"""Fraction of the free memory that the KV cache may take if the operator sets no KV budget."""
KV_MOST = 8 << 30
"""Maximum bytes of the KV cache if the operator sets no KV budget."""


@dataclass(frozen=True, slots=True, kw_only=True)
class EmbeddedOptions:
    """The operator's options for the embedded engine that runs one base model."""

    graphs: Path
    """Folder in which built ONNX graphs are kept."""
    hashes: Path | None = None
    """File that caches the digests of adapter weights. None: compute the digest at every load."""
    device: DeviceChoice = "cpu"
    dtype: Dtype | None = None
    """Number format in which the device computes, fp32 or fp16; None means the device's default."""
    prefill_dtype: Literal["fp32", "bf16"] = "fp32"
    """Number format in which the CPU computes prompts. bf16 needs OpenVINO and a CPU with bfloat16
    instructions.
    """
    quantize: str = "none"
    threads: int | None = None
    max_num_seqs: int = DEFAULT_NUM_SEQS
    max_num_batched_tokens: int = DEFAULT_BATCHED_TOKENS
    prefill_chunk: int | None = None
    max_model_len: int | None = None
    kv_tokens: int | None = None
    """KV cache budget in tokens; takes precedence over `kv_bytes`."""
    kv_bytes: int | None = None
    """KV cache budget in bytes; None means the fraction `KV_SHARE` of the free memory, at most `KV_MOST`."""
    max_queue: int = 256
    max_adapters: int = DEFAULT_ADAPTERS
    """Number of adapter slots: the maximum number of adapters that the engine can have loaded at once."""
    max_cpu_adapters: int | None = None
    """Maximum number of adapters with weights in memory, loaded and evicted ones together. None: loaded
    adapters only.
    """
    prefix_caching: bool = True


def plan(
    config: ModelConfig, options: EmbeddedOptions, provider: Provider = PROVIDERS["cpu"]
) -> SchedulerLimits:
    """Derive the scheduler's limits from the options.

    Raises `ValueError` if the context length is too large or the KV cache budget too small.
    """
    context = config.context if options.max_model_len is None else options.max_model_len
    if context > config.context:
        raise ValueError(
            f"max_model_len {context} is above the base model's maximum of {config.context} tokens; "
            "lower max_model_len"
        )
    if provider.is_device:
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
    kv_tokens = min(kv_tokens, rows * in_pages(context)) // PAGE * PAGE
    if kv_tokens < PAGE:
        raise ValueError(
            f"kv_cache_memory is too small: it holds {kv_tokens} tokens of {token_bytes} bytes each; set at "
            f"least {PAGE * token_bytes} bytes, or {context * token_bytes} to hold the whole context length"
        )
    return SchedulerLimits(
        max_num_seqs=options.max_num_seqs,
        max_num_batched_tokens=options.max_num_batched_tokens,
        rows=rows,
        context=context,
        kv_tokens=kv_tokens,
        prefill_chunk=options.prefill_chunk or options.max_num_batched_tokens,
        prefix_caching=options.prefix_caching,
    )
