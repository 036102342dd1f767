"""Registers the execution providers of Windows ML's catalogue with ONNX Runtime, and lists the devices of
each.
"""

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
"""Kinds of hardware in order of preference, for providers of Windows ML."""


def register_present(catalogue: ProviderCatalogue) -> list[Provider]:
    """Register every installed execution provider of Windows ML with ONNX Runtime. Return their devices in
    order of preference.

    Raises `CatalogueError` if no provider is installed, or no provider has a device on this machine.
    """
    entries = ready_entries(catalogue)
    if not entries:
        raise CatalogueError(
            "device windowsml needs an execution provider of Windows ML, but none is installed and ready; "
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
            f"device windowsml: {listed} finds no hardware on this machine; update the hardware's driver, or "
            "use --device directml"
        )
    return found


def _register(entry: CatalogueEntry) -> bool:
    """Register an execution provider's library with ONNX Runtime, once per process.

    Return False if the library cannot be loaded.
    """
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
