"""Holds the settings against the memory there is; what does not fit is refused with what would."""

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
"""Each way to hold weights → those that take less, the most exact first."""
LEAST_TOKENS = 512
"""Keys and values for fewer tokens than this are no remedy: hardly a request would fit."""

PlanLimits = Callable[["EmbeddedOptions"], SchedulerLimits]


def fit(
    config: ModelConfig,
    options: EmbeddedOptions,
    adapters: Sequence[Adapter],
    plan: PlanLimits,
    available: int,
) -> tuple[SchedulerLimits, MemoryPlan]:
    """The limits that `plan` gives and what they need; less for keys and values where no budget was set.

    Raises `ValueError` where it does not fit into `available` bytes, with the settings that would.
    """
    limits, needed = _attempt(config, options, adapters, plan, available)
    if needed.fits:
        return limits, needed
    parts = ", ".join(f"{part.name} {format_bytes(part.size)}" for part in needed.parts if part.size >= MIB)
    found = " or ".join(_remedies(config, options, adapters, plan, available))
    remedy = f"it fits with {found}" if found else "no setting makes it fit: take a smaller base"
    raise ValueError(
        f"the base needs {format_bytes(needed.size)} of memory and {format_bytes(available)} are free "
        f"({parts}); {remedy}"
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
    """Settings under which the plan fits, the mildest first, each with what it then needs."""
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
    """None, then those that take less memory, the most exact first."""
    prompts: list[dict[str, Any]] = [{}]
    if options.prefill_dtype == "bf16":
        prompts.append({"prefill_dtype": "fp32"})
    for weights in (options.quantize, *SMALLER.get(options.quantize, ())):
        for change in prompts:
            yield change | ({"quantize": weights} if weights != options.quantize else {})


def _room(config: ModelConfig, limits: SchedulerLimits, needed: MemoryPlan) -> int:
    """Tokens whose keys and values would fit beside everything else, in whole pages."""
    room = needed.available - needed.size + limits.kv_tokens * token_bytes(config)
    return max(0, room // token_bytes(config) // PAGE * PAGE)
