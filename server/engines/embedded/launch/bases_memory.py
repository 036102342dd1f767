"""Plans the memory of several base models in one process together, before any of them is loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from adapters.lora.manifest import Adapter
from server.engines.embedded.launch.memory_fit import LEAST_TOKENS, SMALLER
from server.engines.embedded.launch.memory_plan import PROGRAM, MemoryPlan, plan_memory, token_bytes
from server.engines.embedded.launch.options import KV_MOST, KV_SHARE, EmbeddedOptions, plan
from server.engines.embedded.model.cache import method_of
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.variants import FUSED
from server.engines.embedded.runners.available import MIB, format_bytes


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseLoad:
    """One base model whose memory is planned, with its engine options and adapters."""

    name: str
    config: ModelConfig
    options: EmbeddedOptions
    adapters: Sequence[Adapter]
    on_demand: bool = False

    @property
    def automatic(self) -> bool:
        """True if the options set no KV cache budget, so that the planner may choose it."""
        return self.options.kv_bytes is None and self.options.kv_tokens is None

    def needs(self, kv_bytes: int, available: int) -> MemoryPlan:
        """Plan the base model's memory with `kv_bytes` for the KV cache, unless its options set a KV budget.

        Raises `ValueError` if the options do not suit the base model, for example if `max_model_len` is too
        large.
        """
        options = replace(self.options, kv_bytes=kv_bytes) if self.automatic else self.options
        try:
            limits = plan(self.config, options)
        except ValueError as error:
            raise ValueError(f"the memory of base {self.name} cannot be planned: {error}") from None
        method = method_of(options.quantize, FUSED)
        bfloat16 = options.prefill_dtype == "bf16"
        return plan_memory(self.config, limits, method, self.adapters, available, bfloat16=bfloat16)


@dataclass(frozen=True, slots=True)
class BasesPlan:
    """The maximum memory that all base models of the process need together."""

    parts: Mapping[str, MemoryPlan]
    """Maps each base model's name to its memory plan. Each plan includes the memory of the program itself,
    although the process needs this only once.
    """
    always: frozenset[str]
    """Names of the base models that are never unloaded (those without `on_demand`)."""
    room: int | None
    """Number of on-demand base models that may be in memory at once; None means all of them."""
    available: int

    @property
    def size(self) -> int:
        """Bytes needed at most: the program, the base models that are never unloaded, and the `room` largest
        on-demand ones.
        """
        sizes = {name: part.size - PROGRAM for name, part in self.parts.items()}
        others = sorted((size for name, size in sizes.items() if name not in self.always), reverse=True)
        return PROGRAM + sum(sizes[name] for name in self.always) + sum(others[: self.room])

    @property
    def fits(self) -> bool:
        """True if all base models need at most the `available` bytes."""
        return self.size <= self.available

    def lines(self) -> list[str]:
        """Return the plan as lines of text: the total, then one line for each base model."""
        width = max(map(len, self.parts))
        limit = "" if self.room is None else f", with {self.room} on_demand bases at a time"
        size, available = format_bytes(self.size), format_bytes(self.available)
        head = f"memory plan of all bases: up to {size} of {available} free memory{limit}"
        return [head, *(f"  {name:<{width}}  {_in_parts(part)}" for name, part in self.parts.items())]


def plan_bases(
    bases: Sequence[BaseLoad], most: int | None, available: int
) -> tuple[BasesPlan, dict[str, int]]:
    """Plan the memory of all base models. Return the plan, and the KV cache bytes of each base model whose
    options set no KV budget.

    At most `most` base models are in memory at once (None: all). Raises `ValueError` if they do not fit into
    `available` bytes. The message lists what each base model needs and the settings that would make all of
    them fit.
    """
    found = _attempt(bases, most, available)
    if found is not None:
        return found
    least = _plan(bases, most, available, {base.name: _least(base) for base in bases})
    shown = "; ".join(f"{name} {_in_parts(part)}" for name, part in least.parts.items())
    remedies = " or ".join(_remedies(bases, most, available))
    none = "no setting makes them fit; serve fewer or smaller base models"
    remedy = f"they fit with {remedies}" if remedies else none
    needed, free = format_bytes(least.size), format_bytes(available)
    raise ValueError(
        f"the base models together need {needed} of memory, but only {free} are free ({shown}); {remedy}"
    )


def _attempt(
    bases: Sequence[BaseLoad], most: int | None, available: int
) -> tuple[BasesPlan, dict[str, int]] | None:
    """Plan with the largest KV cache budgets that fit into `available` bytes; return None if even the
    smallest do not fit.
    """
    wanted = min(KV_MOST, int(available * KV_SHARE)) // len(bases)
    kv = {base.name: max(wanted, _least(base)) for base in bases}
    least = {base.name: _least(base) for base in bases}
    part = 1.0
    while True:
        budget = {name: max(least[name], int(kv[name] * part)) for name in kv}
        found = _plan(bases, most, available, budget)
        if found.fits:
            return found, {base.name: budget[base.name] for base in bases if base.automatic}
        if budget == least:
            return None
        part = part * 0.8 if part > 0.01 else 0.0


def _plan(bases: Sequence[BaseLoad], most: int | None, available: int, kv: Mapping[str, int]) -> BasesPlan:
    always = frozenset(base.name for base in bases if not base.on_demand)
    parts = {base.name: base.needs(kv[base.name], available) for base in bases}
    room = None if most is None else max(0, most - len(always))
    return BasesPlan(parts, always, room, available)


def _least(base: BaseLoad) -> int:
    return LEAST_TOKENS * token_bytes(base.config)


def _remedies(bases: Sequence[BaseLoad], most: int | None, available: int) -> Iterator[str]:
    """Yield the settings with which all base models would fit into `available` bytes, the least drastic ones
    first.
    """
    waiting = [base.name for base in bases if base.on_demand]
    always = len(bases) - len(waiting)
    for fewer in range((most or len(bases)) - 1, always, -1):
        if _attempt(bases, fewer, available) is not None:
            yield f"max_loaded_bases {fewer}"
            break
    smaller = [(base.name, weights) for base in bases for weights in SMALLER.get(base.options.quantize, ())]
    tries = [*({name: weights} for name, weights in smaller), *_all_smaller(bases)]
    for change in tries:
        changed = [_with_weights(base, change.get(base.name)) for base in bases]
        if _attempt(changed, most, available) is not None:
            yield " and ".join(f"bases.{name}.quantize {weights}" for name, weights in change.items())
    if not waiting:
        demanded = [replace(base, on_demand=True) for base in bases]
        if _attempt(demanded, 1, available) is not None:
            yield "on_demand true for every base and max_loaded_bases 1"


def _all_smaller(bases: Sequence[BaseLoad]) -> Iterator[dict[str, str]]:
    for weights in ("int8", "int4"):
        change = {base.name: weights for base in bases if weights in SMALLER.get(base.options.quantize, ())}
        if len(change) > 1:
            yield change


def _with_weights(base: BaseLoad, weights: str | None) -> BaseLoad:
    return base if weights is None else replace(base, options=replace(base.options, quantize=weights))


def _in_parts(plan: MemoryPlan) -> str:
    parts = ", ".join(
        f"{part.name} {format_bytes(part.size)}"
        for part in plan.parts
        if part.size >= MIB and part.name != "program"
    )
    return f"{format_bytes(plan.size - PROGRAM)} ({parts})"
