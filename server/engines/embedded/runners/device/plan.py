"""Plans how many KV cache slots a device has room for, each with the full context length.

A device cannot free memory page by page and does not report how much is free. So admitted sequences must fit
even if every answer reaches the full context length. A decoding sequence takes the memory of two slots, since
a run reads one block and writes another. A slot that holds a prefix for reuse takes the memory of one. Two
more slots are counted: one that is written while a prompt is computed, and one that is being copied between
blocks.
"""

from __future__ import annotations

from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.plan import NUMPY, Dtype
from server.engines.embedded.runners.available import format_bytes
from server.engines.embedded.runners.device.buckets import memories
from server.engines.embedded.scheduling.limits import SchedulerLimits, in_pages

DEFAULT_BYTES = 5 << 29
"""Bytes of KV cache on a device if the operator sets no KV budget."""
BESIDE = 2
"""KV cache slots that are counted in addition to those of sequences: one for a prompt being computed, one for
a copy.
"""
ITEM_BYTES = {"float32": 4, "float16": 2}


def row_bytes(config: ModelConfig, context: int, dtype: Dtype) -> int:
    """Return the bytes of one KV cache slot with the full context length."""
    return config.layers * 2 * config.kv_width * memories(context)[-1] * ITEM_BYTES[NUMPY[dtype]]


def device_bytes(seqs: int, rows: int, row: int) -> int:
    """Return the maximum bytes of `rows` KV cache slots of `row` bytes each, if `seqs` sequences decode at
    once.
    """
    return (rows + seqs + BESIDE) * row


def device_limits(
    config: ModelConfig,
    dtype: Dtype,
    *,
    context: int,
    max_num_seqs: int,
    max_num_batched_tokens: int,
    prefill_chunk: int,
    prefix_caching: bool,
    kv_bytes: int | None,
    kv_tokens: int | None,
) -> SchedulerLimits:
    """Return scheduler limits with as many sequences as the KV budget holds, at most `max_num_seqs`.

    With prefix caching, as many KV cache slots again are added for cached prefixes. If `kv_tokens` is given,
    it limits the cached tokens, and the number of slots is not reduced. Raises `ValueError` if the budget
    cannot hold one sequence.
    """
    row = row_bytes(config, context, dtype)
    budget = DEFAULT_BYTES if kv_bytes is None else kv_bytes
    seqs, cached = max_num_seqs, max_num_seqs if prefix_caching else 0
    if kv_tokens is None:
        if budget < device_bytes(1, 1, row):
            raise ValueError(
                f"kv_cache_memory is {budget} bytes, too small for one sequence of {context} tokens; set at "
                f"least {device_bytes(1, 1, row)}, or lower max_model_len"
            )
        units = budget // row - BESIDE
        seqs = min(max_num_seqs, max(1, units // (3 if prefix_caching else 2)))
        cached = min(cached, units - 2 * seqs)
    rows = seqs + cached
    most = rows * in_pages(context)
    return SchedulerLimits(
        max_num_seqs=seqs,
        max_num_batched_tokens=max_num_batched_tokens,
        rows=rows,
        context=context,
        kv_tokens=most if kv_tokens is None else min(kv_tokens, most),
        prefill_chunk=prefill_chunk,
        prefix_caching=prefix_caching,
    )


def device_budget(
    config: ModelConfig, limits: SchedulerLimits, dtype: Dtype, weights: int, memory: int | None
) -> list[str]:
    """Return lines of text that tell the operator how much memory a device will need.

    `memory` is the largest graphics card's memory in bytes, if known; `weights` is the size of the graph's
    weights in bytes. A plan larger than `memory` is reported but not refused, since drivers let cards use the
    machine's memory too.
    """
    row = row_bytes(config, limits.context, dtype)
    kept = device_bytes(limits.max_num_seqs, limits.rows, row)
    room = "of its memory (size unknown)" if memory is None else f"of {format_bytes(memory)}"
    lines = [
        f"memory plan of the device: up to {format_bytes(weights + kept)} {room}, plus the adapters",
        f"  weights          {format_bytes(weights):>9}",
        f"  keys and values  {format_bytes(kept):>9}  {limits.max_num_seqs} sequences of "
        f"{limits.context:,} tokens",
    ]
    if memory is None or weights + kept <= memory:
        return lines
    fits = weights + device_bytes(1, 1, row) <= memory
    remedy = f"kv_cache_memory {(memory - weights) >> 20}MiB" if fits else "quantize or a lower max_model_len"
    return [
        *lines,
        f"  warning: the plan needs more than the card's own memory, so the engine will be slow or fail; "
        f"set {remedy}",
    ]
