"""Implements `oneseek devices`, which lists the devices of this machine and what they can run."""

from __future__ import annotations

import json as json_format
import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from server.cli.flags import Json
from server.config.each_base import default_settings
from server.config.settings import ResolvedSettings

if TYPE_CHECKING:
    from server.engines.embedded.launch.survey import DeviceFit, DeviceSurvey
    from server.engines.embedded.runners.windowsml.catalogue import Offer


def devices(resolved: ResolvedSettings, *, json: Json = False) -> int:
    """List the devices that the embedded engine can use here, their memory, and whether the base fits."""
    import psutil

    from adapters.bases import find_base
    from server.engines.embedded.runners.device.flavours import check_flavours, find_installed

    settings = default_settings(resolved.settings)
    flavours = find_installed()
    check_flavours(None if settings.device == "auto" else settings.device, flavours)
    from server.engines.embedded.launch.start import embedded_options
    from server.engines.embedded.launch.survey import survey

    base = find_base(Path.cwd(), settings.base_model)
    found = survey(base.path, embedded_options(settings), flavours)
    memory = psutil.virtual_memory()
    if json:
        rows = [asdict(item) | {"fits": item.fit and item.fit.fits} for item in found]
        machine = {"cores": os.cpu_count(), "memory": memory.total, "available": memory.available}
        shown = {"base": base.name, "machine": machine, "devices": rows}
        print(json_format.dumps(shown, indent=2, ensure_ascii=False))
        return 0
    print(
        f"machine   {os.cpu_count()} cores, {_gib(memory.total)} memory, {_gib(memory.available)} of it free"
    )
    print(f"base      {base.name}")
    for item in found:
        print(f"{item.name:<9} {_presence(item)}")
        for offer in item.offers:
            print(f"          provider: {_offer(offer)}")
        for card in item.cards:
            size = "memory unknown" if card.memory is None else f"{_gib(card.memory)} of memory"
            print(f"          card: {card.name}, {size}")
        if item.problem is not None:
            print(f"          cannot run the base: {item.problem}")
        if item.fit is not None:
            print(f"          can run {_fit(item.fit)}")
    return 0


def _presence(item: DeviceSurvey) -> str:
    if item.remedy is not None:
        return f"not available: {item.remedy}"
    return f"available: {item.provider}, from {item.distribution}"


def _offer(offer: Offer) -> str:
    shown = f"{offer.name} {offer.version}".rstrip()
    if offer.state != "absent":
        return f"{shown}, installed"
    kind = "" if offer.certified else ", not certified for this machine"
    return f"{shown}, not installed{kind}: oneseek devices install {offer.name}"


def _fit(fit: DeviceFit) -> str:
    weights = "float weights" if fit.quantize == "none" else f"{fit.quantize} weights"
    verdict = {None: "whether this fits is unknown", True: "fits", False: "does not fit"}[fit.fits]
    room = "" if fit.memory is None else f" {_gib(fit.memory)}"
    return (
        f"{fit.variant} in {fit.dtype}, {weights} {_gib(fit.weights)}, keys and values {_gib(fit.kv)} for "
        f"{fit.sequences} sequences of {fit.context} tokens: {verdict}{room}"
    )


def _gib(size: int) -> str:
    return f"{size / 2**30:.1f} GiB" if size >= 2**29 else f"{size / 2**20:.0f} MiB"
