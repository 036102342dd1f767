"""Lists this machine's graphics cards, as far as the operating system knows them without vendor tools.

On Linux it reads /sys, and on Windows the values that drivers write to the registry. Unknown values are None.
A listed card may not work with an ONNX Runtime execution provider.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

VENDORS = {"0x1002": "AMD", "0x10de": "NVIDIA", "0x8086": "Intel", "0x106b": "Apple", "0x5143": "Qualcomm"}
CARDS = Path("/sys/class/drm")
DISPLAY_CLASS = r"SYSTEM\CurrentControlSet\Control\Class\{4d36e968-e325-11ce-bfc1-08002be10318}"
"""Registry key of Windows' display adapters:
https://learn.microsoft.com/windows-hardware/drivers/install/system-defined-device-setup-classes-available-to-vendors
"""


@dataclass(frozen=True, slots=True)
class Card:
    """A graphics card of this machine."""

    name: str
    memory: int | None
    """Bytes of the card's own memory; None if unknown, or if the card uses the machine's main memory."""


def cards() -> tuple[Card, ...]:
    """List all graphics cards that the operating system knows.

    The list is empty except on Linux and Windows.
    """
    if sys.platform == "win32":
        return tuple(_of_registry())
    return tuple(_of_sys(CARDS))


def largest_memory() -> int | None:
    """Return the memory, in bytes, of the graphics card with the most memory; None if no card's memory is
    known.
    """
    return max((card.memory for card in cards() if card.memory is not None), default=None)


def _of_sys(folder: Path) -> Iterator[Card]:
    """Read graphics cards from /sys/class/drm, which has a folder for each card and for each display
    output.
    """
    for device in sorted(folder.glob("card[0-9]*/device")):
        if "-" in device.parent.name:
            continue
        vendor, model = _line(device / "vendor"), _line(device / "device")
        if vendor:
            memory = _line(device / "mem_info_vram_total")
            yield Card(
                f"{VENDORS.get(vendor, vendor)} {model}",
                int(memory) if memory.isascii() and memory.isdigit() else None,
            )


def _line(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return ""


def _of_registry() -> Iterator[Card]:
    if sys.platform != "win32":
        return
    import winreg

    with winreg.OpenKey(winreg.HKEY_LOCAL_MACHINE, DISPLAY_CLASS) as adapters:
        for index in range(winreg.QueryInfoKey(adapters)[0]):
            try:
                with winreg.OpenKey(adapters, winreg.EnumKey(adapters, index)) as adapter:
                    name, _ = winreg.QueryValueEx(adapter, "DriverDesc")
                    try:
                        memory, _ = winreg.QueryValueEx(adapter, "HardwareInformation.qwMemorySize")
                    except OSError:
                        memory = None
                    yield Card(str(name), memory if isinstance(memory, int) and memory else None)
            except OSError:  # keys that only the system may read, such as Properties
                continue
