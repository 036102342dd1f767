"""Checks that the engine's settings fit the free memory, and suggests other settings if they do not."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from adapters.lora.manifest import Adapter
from server.engines.embedded.launch.memory_plan import MemoryPlan, plan_memory, token_bytes
from server.engines.embedded.model.cache import method_of
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.variants import FUSED
from server.engines.embedded.runners.available import MIB, format_bytes
from server.engines.embedded.scheduling.limits import PAGE, SchedulerLimits

if TYPE_CHECKING:
    from server.engines.embedded.launch.options import EmbeddedOptions

SMALLER = {"none": ("int8", "int4"), "int8": ("int4",)}
"""Maps each value of the `quantize` setting to the values that need less memory, the most accurate first."""
LEAST_TOKENS = 512
"""Smallest KV cache budget that is suggested, in tokens. With less, most requests would not fit."""

PlanLimits = Callable[["EmbeddedOptions"], SchedulerLimits]


def fit(
    config: ModelConfig,
    options: EmbeddedOptions,
    adapters: Sequence[Adapter],
    plan: PlanLimits,
    available: int,
) -> tuple[SchedulerLimits, MemoryPlan]:
    """Return the scheduler limits that `plan` derives from the options, and the memory that they need.

    If the options set no KV cache budget, it is reduced until the plan fits. Raises `ValueError` if the plan
    does not fit into `available` bytes even then. The message names settings that would fit.
    """
    limits, needed = _attempt(config, options, adapters, plan, available)
    if needed.fits:
        return limits, needed
    parts = ", ".join(f"{part.name} {format_bytes(part.size)}" for part in needed.parts if part.size >= MIB)
    found = " or ".join(_remedies(config, options, adapters, plan, available))
    remedy = f"it fits with {found}" if found else "no setting makes it fit; use a smaller base model"
    raise ValueError(
        f"the base model needs {format_bytes(needed.size)} of memory, but only {format_bytes(available)} are "
        f"free ({parts}); {remedy}"
    )


def _attempt(
    config: ModelConfig,
    options: EmbeddedOptions,
    adapters: Sequence[Adapter],
    plan: PlanLimits,
    available: int,
) -> tuple[SchedulerLimits, MemoryPlan]:
    method = method_of(options.quantize, FUSED)
    bfloat16 = options.prefill_dtype == "bf16"
    limits = plan(options)
    needed = plan_memory(config, limits, method, adapters, available, bfloat16=bfloat16)
    if needed.fits or options.kv_bytes is not None or options.kv_tokens is not None:
        return limits, needed
    tokens = _room(config, limits, needed)
    if tokens < LEAST_TOKENS:
        return limits, needed
    limits = plan(replace(options, kv_tokens=tokens))
    return limits, plan_memory(config, limits, method, adapters, available, bfloat16=bfloat16)


def _remedies(
    config: ModelConfig,
    options: EmbeddedOptions,
    adapters: Sequence[Adapter],
    plan: PlanLimits,
    available: int,
) -> Iterator[str]:
    """Yield settings with which the base model would fit into `available` bytes, each with the memory needed.

    The least drastic come first.
    """
    for changes in _changes(options):
        changed = [f"{name} {value}" for name, value in changes.items()]
        limits, needed = _attempt(config, replace(options, **changes), adapters, plan, available)
        if needed.fits:
            yield f"{' and '.join(changed)} ({format_bytes(needed.size)})"
            continue
        tokens = _room(config, limits, needed)
        if tokens >= min(LEAST_TOKENS, limits.kv_tokens):
            size = tokens * token_bytes(config) // MIB
            yield " and ".join([*changed, f"kv_cache_memory {size}MiB ({tokens:,} tokens)"])


def _changes(options: EmbeddedOptions) -> Iterator[dict[str, Any]]:
    """Yield changes to the options that save memory, most accurate first. The first one changes nothing."""
    prompts: list[dict[str, Any]] = [{}]
    if options.prefill_dtype == "bf16":
        prompts.append({"prefill_dtype": "fp32"})
    for weights in (options.quantize, *SMALLER.get(options.quantize, ())):
        for change in prompts:
            yield change | ({"quantize": weights} if weights != options.quantize else {})


def _room(config: ModelConfig, limits: SchedulerLimits, needed: MemoryPlan) -> int:
    """Return how many tokens of KV cache, in whole pages, fit into the memory that the other parts leave
    free.
    """
    room = needed.available - needed.size + limits.kv_tokens * token_bytes(config)
    return max(0, room // token_bytes(config) // PAGE * PAGE)
