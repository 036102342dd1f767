"""Rows of KV memory that a device has room for, each to the end of its context.

A device gives nothing back page by page and tells nobody how much it has left, so what is admitted has to
fit whatever the answers grow to. A row that decodes takes its memory twice, since a run reads one block and
fills another; a row that holds a prefix for reuse takes it once; one more is filled while a prompt is
computed, and one is on its way between two blocks.
"""

from __future__ import annotations

from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.plan import NUMPY, Dtype
from server.engines.embedded.runners.available import format_bytes
from server.engines.embedded.runners.device.buckets import memories
from server.engines.embedded.scheduling.limits import SchedulerLimits, in_pages

DEFAULT_BYTES = 5 << 29
"""KV memory where no budget is given."""
BESIDE = 2
"""Rows' worth of memory beside those that are held."""
ITEM_BYTES = {"float32": 4, "float16": 2}


def row_bytes(config: ModelConfig, context: int, dtype: Dtype) -> int:
    """Bytes of one row that is full."""
    return config.layers * 2 * config.kv_width * memories(context)[-1] * ITEM_BYTES[NUMPY[dtype]]


def device_bytes(seqs: int, rows: int, row: int) -> int:
    """Bytes that `rows` rows of `row` bytes take at most, `seqs` of them decoding at once."""
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
    """As many sequences as the budget holds, `max_num_seqs` at most, and rows to cache as many again.

    `kv_tokens`, where given, bounds what the scheduler holds and leaves the rows as they are asked for.
    Raises `ValueError` where the budget does not hold one sequence.
    """
    row = row_bytes(config, context, dtype)
    budget = DEFAULT_BYTES if kv_bytes is None else kv_bytes
    seqs, cached = max_num_seqs, max_num_seqs if prefix_caching else 0
    if kv_tokens is None:
        if budget < device_bytes(1, 1, row):
            raise ValueError(
                f"kv_cache_memory of {budget} bytes holds no row of {context} tokens on a device; give it "
                f"{device_bytes(1, 1, row)}, or lower max_model_len"
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
    """For people: what a device is to hold, its largest card having `memory` bytes of its own, if known.

    `weights` is the bytes of the graph's. More than that is told and not refused, since drivers lend cards
    the machine's memory, and those without any live on it.
    """
    row = row_bytes(config, limits.context, dtype)
    kept = device_bytes(limits.max_num_seqs, limits.rows, row)
    room = "of its memory, which the system does not tell" if memory is None else f"of {format_bytes(memory)}"
    lines = [
        f"memory plan of the device: up to {format_bytes(weights + kept)} {room}; adapters come on top",
        f"  weights          {format_bytes(weights):>9}",
        f"  keys and values  {format_bytes(kept):>9}  {limits.max_num_seqs} sequences of "
        f"{limits.context:,} tokens",
    ]
    if memory is None or weights + kept <= memory:
        return lines
    fits = weights + device_bytes(1, 1, row) <= memory
    remedy = f"kv_cache_memory {(memory - weights) >> 20}MiB" if fits else "quantize, a lower max_model_len"
    return [*lines, f"  warning: more than the card has of its own, so slow if at all; try {remedy}"]
