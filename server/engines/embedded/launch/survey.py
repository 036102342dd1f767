"""What each device would run, and whether that fits: what `oneseek devices` shows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import onnxruntime as ort

from server.engines.embedded.launch.device_choice import bring_up, dtype_on
from server.engines.embedded.launch.options import EmbeddedOptions, plan
from server.engines.embedded.model.decoder import plan_graph
from server.engines.embedded.model.families.lookup import read_model_config
from server.engines.embedded.model.plan import Dtype
from server.engines.embedded.model.quantize import Quantize
from server.engines.embedded.model.variants import VARIANTS
from server.engines.embedded.runners.available import available_memory
from server.engines.embedded.runners.device.flavours import Flavour, FlavourError, can_install, check_provider
from server.engines.embedded.runners.device.hardware import Card, cards
from server.engines.embedded.runners.device.plan import device_bytes, row_bytes
from server.engines.embedded.runners.device.providers import PROVIDERS, Provider
from server.engines.embedded.runners.device.selftest import DeviceError
from server.engines.embedded.scheduling.limits import SchedulerLimits


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """What a device would run of the base, and the memory that takes."""

    variant: str
    dtype: str
    quantize: str
    weights: int
    """Bytes."""
    kv: int
    """Bytes of keys and values at most."""
    sequences: int
    context: int
    memory: int | None
    """Bytes that there are for it; None where that is not known."""

    @property
    def fits(self) -> bool | None:
        """Whether both go into it; None where that is not known."""
        return None if self.memory is None else self.weights + self.kv <= self.memory


@dataclass(frozen=True, slots=True)
class DeviceSurvey:
    """One device."""

    name: str
    provider: str
    distribution: str
    present: bool
    remedy: str | None
    """Why it is not there, with the command that brings it where there is one."""
    cards: tuple[Card, ...]
    fit: DeviceFit | None
    """None without a base that the embedded engine runs."""
    problem: str | None = None
    """Why it would not run the base."""


def survey(base: Path, options: EmbeddedOptions, flavours: Sequence[Flavour]) -> list[DeviceSurvey]:
    """Every device, present or not. Opens a session on each that is, for a moment."""
    available, found = ort.get_available_providers(), cards()
    return [_look(provider, available, found, base, options, flavours) for provider in PROVIDERS.values()]


def _look(
    provider: Provider,
    available: Sequence[str],
    found: tuple[Card, ...],
    base: Path,
    options: EmbeddedOptions,
    flavours: Sequence[Flavour],
) -> DeviceSurvey:
    remedy = _absent(provider, available, flavours)
    own = found if provider.is_device else ()
    fit, problem = None, None
    try:
        fit = _fit(provider, base, options, own)
    except ValueError as error:
        problem = str(error)
    distribution = str(flavours[0]) if remedy is None and flavours else provider.distribution
    return DeviceSurvey(provider.name, provider.ort, distribution, remedy is None, remedy, own, fit, problem)


def _absent(provider: Provider, available: Sequence[str], flavours: Sequence[Flavour]) -> str | None:
    if not can_install(provider):
        return "for Windows alone"
    try:
        check_provider(provider, available, flavours)
        if provider.is_device:
            bring_up(provider)
    except (FlavourError, DeviceError) as error:
        return str(error)
    return None


def _fit(provider: Provider, base: Path, options: EmbeddedOptions, own: Sequence[Card]) -> DeviceFit:
    config = read_model_config(base)
    dtype: Dtype = dtype_on(provider, options.dtype, "auto")
    quantize: Quantize = _quantize(options.quantize)
    limits = plan(config, options, provider)
    weights = plan_graph(config, VARIANTS[provider.variant], dtype, quantize).size
    if not provider.is_device:
        kv, memory = limits.kv_tokens * config.layers * 2 * config.kv_width * 4, available_memory()
    else:
        kv = device_bytes(limits.max_num_seqs, limits.rows, row_bytes(config, limits.context, dtype))
        known = [card.memory for card in own if card.memory is not None]
        memory = max(known, default=None)
    return _made(provider, dtype, quantize, weights, kv, limits, memory)


def _made(
    provider: Provider,
    dtype: Dtype,
    quantize: Quantize,
    weights: int,
    kv: int,
    limits: SchedulerLimits,
    memory: int | None,
) -> DeviceFit:
    seqs, context = limits.max_num_seqs, limits.context
    return DeviceFit(provider.variant, dtype, quantize, weights, kv, seqs, context, memory)


def _quantize(text: str) -> Quantize:
    return "int8" if text == "int8" else "int4" if text == "int4" else "none"
