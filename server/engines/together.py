"""Plans several bases in one process: checks, before any engine is opened, that their memory fits
together.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from adapters.lora.manifest import Adapter
from server.config.bases import UTILIZATION
from server.config.settings import Settings
from server.config.values import SettingsError
from server.engines.kinds import ENGINES
from server.errors import EngineError

DEFAULT_UTILIZATION = 0.9
"""vLLM's own default for its option `gpu_memory_utilization`, the part of the GPU's memory that it may
use.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlannedBase:
    """A base to be served, with the kind of engine that will run it."""

    name: str
    kind: str
    path: Path
    settings: Settings
    adapters: Sequence[Adapter]
    """The active version of each adapter alias of this base."""
    on_demand: bool


def plan_together(
    bases: Sequence[PlannedBase], most: int | None, say: Callable[[str], None]
) -> list[Settings]:
    """Return the settings of each base, completed by the KV cache memory that it may use.

    At most `most` bases are in memory at once (None: no limit). `say` prints the plan. Raises `SettingsError`
    or `EngineError` if the bases do not fit into memory together.
    """
    if len(bases) == 1:
        return [bases[0].settings]
    always = sum(not base.on_demand for base in bases)
    _check_gpu([base for base in bases if ENGINES[base.kind].divides_gpu], most, always)
    cpu = [base for base in bases if not ENGINES[base.kind].divides_gpu and base.settings.device == "cpu"]
    kv = _plan_cpu(cpu, most, say) if cpu else {}
    return [
        replace(base.settings, kv_cache_memory=kv[base.name]) if base.name in kv else base.settings
        for base in bases
    ]


def _plan_cpu(bases: Sequence[PlannedBase], most: int | None, say: Callable[[str], None]) -> dict[str, int]:
    from server.engines.embedded.launch.bases_memory import BaseLoad, plan_bases
    from server.engines.embedded.launch.start import embedded_options
    from server.engines.embedded.model.families.lookup import read_model_config
    from server.engines.embedded.runners.available import available_memory

    try:
        loads = [
            BaseLoad(
                name=base.name,
                config=read_model_config(base.path),
                options=embedded_options(base.settings),
                adapters=base.adapters,
                on_demand=base.on_demand,
            )
            for base in bases
        ]
        found, kv = plan_bases(loads, most, available_memory())
    except ValueError as error:
        raise EngineError(str(error)) from error
    for line in found.lines():
        say(line)
    return kv


def _check_gpu(bases: Sequence[PlannedBase], most: int | None, always: int) -> None:
    """Raise `SettingsError` if the bases that vLLM serves may take more than the GPU's whole memory
    together.
    """
    shares = {base.name: _utilization(base.settings) for base in bases}
    fixed = [shares[base.name] for base in bases if not base.on_demand]
    others = sorted((shares[base.name] for base in bases if base.on_demand), reverse=True)
    room = len(others) if most is None else max(0, most - always)
    total = sum(fixed) + sum(others[:room])
    if len(bases) > 1 and total > 1.0 + 1e-9:
        listed = ", ".join(f"{name} {share:g}" for name, share in shares.items())
        last = bases[-1].name
        raise SettingsError(
            f"bases.{last}.{UTILIZATION}",
            f"the bases on vLLM may together take {total:g} times the GPU's memory ({listed}); "
            "lower gpu_memory_utilization of some bases, so that the sum is at most 1",
        )


def _utilization(settings: Settings) -> float:
    text = settings.engine.options.get(UTILIZATION)
    try:
        return DEFAULT_UTILIZATION if text is None else float(text)
    except ValueError:
        return DEFAULT_UTILIZATION  # which vLLM's own check refuses
