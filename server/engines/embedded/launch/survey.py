"""Finds out how each device would run the base model and if it fits, for the command `oneseek devices`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
from server.engines.embedded.runners.windowsml.catalogue import (
    CatalogueError,
    Offer,
    list_offers,
    open_catalogue,
)
from server.engines.embedded.runners.windowsml.registration import register_present
from server.engines.embedded.scheduling.limits import SchedulerLimits


@dataclass(frozen=True, slots=True)
class DeviceFit:
    """How a device would run the base model, and the memory needed for that."""

    variant: str
    dtype: str
    quantize: str
    weights: int
    """Bytes that the base model's weights take on the device."""
    kv: int
    """Maximum bytes that the KV cache takes on the device."""
    sequences: int
    context: int
    memory: int | None
    """Bytes of memory that the device has; None if this is unknown."""

    @property
    def fits(self) -> bool | None:
        """True if weights and KV cache fit into the device's memory; None if its size is unknown."""
        return None if self.memory is None else self.weights + self.kv <= self.memory


@dataclass(frozen=True, slots=True)
class DeviceSurvey:
    """What `oneseek devices` shows about one device."""

    name: str
    provider: str
    distribution: str
    present: bool
    remedy: str | None
    """Why the device is missing, with a command that installs it if there is one; None if it is present."""
    cards: tuple[Card, ...]
    fit: DeviceFit | None
    """How the device would run the base model; None if the embedded engine cannot run the base model on
    it.
    """
    problem: str | None = None
    """Why the device cannot run the base model; None if it can."""
    offers: tuple[Offer, ...] = ()
    """Execution providers that Windows ML's catalogue offers for this machine. Empty for all devices except
    `windowsml`.
    """


def survey(base: Path, options: EmbeddedOptions, flavours: Sequence[Flavour]) -> list[DeviceSurvey]:
    """List every device that the embedded engine knows, present or not.

    Opens a short session on each device that is present, to see if it starts.
    """
    available, found = ort.get_available_providers(), cards()
    built_in = [provider for provider in PROVIDERS.values() if provider.name != "windowsml"]
    return [
        _look_at_catalogue(found, base, options, flavours),
        *(
            _look(provider, _absent(provider, available, flavours), found, base, options, flavours)
            for provider in built_in
        ),
    ]


def _look_at_catalogue(
    found: tuple[Card, ...], base: Path, options: EmbeddedOptions, flavours: Sequence[Flavour]
) -> DeviceSurvey:
    """Describe the device `windowsml`: its installed execution providers, and those that Windows offers.

    Downloads nothing.
    """
    provider, offers, remedy = PROVIDERS["windowsml"], (), None
    try:
        catalogue = open_catalogue()
        offers = list_offers(catalogue)
        provider = register_present(catalogue)[0]
        bring_up(provider)
    except (CatalogueError, DeviceError) as error:
        here = can_install(provider) or bool(offers)
        remedy = str(error) if here else "for Windows only"
    return replace(_look(provider, remedy, found, base, options, flavours), offers=offers)


def _look(
    provider: Provider,
    remedy: str | None,
    found: tuple[Card, ...],
    base: Path,
    options: EmbeddedOptions,
    flavours: Sequence[Flavour],
) -> DeviceSurvey:
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
        return "for Windows only"
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
