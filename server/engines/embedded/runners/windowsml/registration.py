"""Registers the catalogue's providers with ONNX Runtime, and lists the devices of each provider."""

from __future__ import annotations

import logging
from dataclasses import replace

import onnxruntime as ort

from server.engines.embedded.runners.device.providers import PROVIDERS, Hardware, Provider
from server.engines.embedded.runners.device.sessions import find_devices
from server.engines.embedded.runners.windowsml.catalogue import (
    CatalogueEntry,
    CatalogueError,
    ProviderCatalogue,
    ready_entries,
)
from server.errors import first_line

logger = logging.getLogger(__name__)
_ORDER: tuple[Hardware, ...] = ("gpu", "npu", "cpu")
"""Kinds of hardware, in order of preference."""


def register_present(catalogue: ProviderCatalogue) -> list[Provider]:
    """Register every installed provider, and return their devices in order of preference.

    Raises `CatalogueError` if no provider is installed, or none of them has a device on this machine.
    """
    entries = ready_entries(catalogue)
    if not entries:
        raise CatalogueError(
            "device windowsml needs a provider of Windows ML, and none is installed and ready; "
            "run: oneseek devices install, or use --device directml"
        )
    names = [entry.name for entry in entries if _register(entry)]
    found = [
        replace(PROVIDERS["windowsml"], ort=name, hardware=hardware)
        for hardware in _ORDER
        for name in names
        if find_devices(name, hardware)
    ]
    if not found:
        listed = ", ".join(entry.name for entry in entries)
        raise CatalogueError(
            f"device windowsml: {listed} has no device here; update the driver, or use --device directml"
        )
    return found


def _register(entry: CatalogueEntry) -> bool:
    """Register a provider's library, once per process. Return False if it cannot be loaded."""
    if any(device.ep_name == entry.name for device in ort.get_ep_devices()):
        return True
    try:
        ort.register_execution_provider_library(entry.name, entry.library_path)
    except Exception as error:  # ONNX Runtime's errors have no common base class
        logger.warning(
            "the Windows ML provider %s %s cannot be loaded, so its devices are not used: %s",
            entry.name,
            entry.version,
            first_line(error),
        )
        return False
    return True
