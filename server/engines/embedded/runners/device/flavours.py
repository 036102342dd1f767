"""Which ONNX Runtime is installed: one flavour, and one that has the provider that a device needs.

Every flavour (`onnxruntime`, `onnxruntime-webgpu`, `onnxruntime-windowsml`…) puts its files into the same
folder, `onnxruntime`. Two of them in one environment leave a mixture of both, which pip does not prevent and
which fails late, if at all. Imports no part of ONNX Runtime.
"""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import distributions
from pathlib import Path

from server.engines.embedded.runners.device.providers import PROVIDERS, DeviceName, Provider
from server.errors import EngineError

PACKAGE = "onnxruntime"
PINNED = {
    "onnxruntime-webgpu": "1.27.0",
    "onnxruntime-windowsml": "1.30.0.202609102321",
}
"""Flavours that are pinned, as pyproject.toml has them."""
PLAIN = {"win32": "onnxruntime-windowsml"}
"""The flavour that OneSeek brings on a platform; elsewhere `onnxruntime`."""


class FlavourError(EngineError):
    """None, several or the wrong one of ONNX Runtime's flavours; the message has the commands for it."""


@dataclass(frozen=True, slots=True, order=True)
class Flavour:
    """A distribution that owns the package `onnxruntime`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def find_installed(folder: Path | None = None) -> tuple[Flavour, ...]:
    """The flavours whose files lie where `import onnxruntime` would load from (or in `folder`), by name."""
    folder = folder or _folder()
    if folder is None:
        return ()
    found: set[Flavour] = set()
    for distribution in distributions(path=[str(folder)]):
        record = distribution.read_text("RECORD") or ""
        if record.startswith(f"{PACKAGE}/__init__.py,") or f"\n{PACKAGE}/__init__.py," in record:
            found.add(Flavour(_normal(distribution.name), distribution.version))
    return tuple(sorted(found))


def check_flavours(device: DeviceName | None, found: Iterable[Flavour], platform: str = sys.platform) -> None:
    """Raise `FlavourError` unless exactly one of ONNX Runtime's flavours is there.

    `device` is what is wanted, and with it the flavour that a remedy keeps; None takes any. That the flavour
    has the device's provider is for `check_provider` to say.
    """
    flavours = tuple(found)
    if len(flavours) == 1:
        return
    keep = _wanted(device, flavours, platform)
    if not flavours:
        raise FlavourError(f"ONNX Runtime is not installed here; run: {install(keep)}")
    names = " and ".join(map(str, flavours))
    raise FlavourError(
        f"{names} share one folder in this environment, and what loads is a mixture of them; "
        f"run: {exchange_commands([flavour.name for flavour in flavours], keep)}"
    )


def check_provider(provider: Provider, available: Iterable[str], found: Iterable[Flavour]) -> None:
    """Raise `FlavourError` unless `provider` is among those that the installed flavour was built with."""
    flavours = tuple(found)
    if provider.ort in available:
        return
    have = " and ".join(map(str, flavours)) or "the ONNX Runtime here"
    problem = f"--device {provider.name} needs {provider.distribution}, and {have} has no {provider.ort}"
    if not can_install(provider):
        raise FlavourError(f"{problem}; it is for Windows alone, use --device webgpu or --device cpu")
    raise FlavourError(
        f"{problem}; run: {exchange_commands([flavour.name for flavour in flavours], provider.distribution)}"
    )


def can_install(provider: Provider, platform: str = sys.platform) -> bool:
    """Whether this platform has the device's flavour at all."""
    return provider.name != "directml" or platform == "win32"


def install(name: str) -> str:
    """The command that brings a flavour."""
    version = PINNED.get(name)
    return f"pip install {name}=={version}" if version else f"pip install {name}"


def exchange_commands(names: Iterable[str], keep: str) -> str:
    """The commands that leave `keep` alone. Those that share its folder go first, and `keep` with them."""
    gone = " ".join(sorted(names))
    return f"pip uninstall -y {gone}  and then  {install(keep)}" if gone else install(keep)


def _wanted(device: DeviceName | None, flavours: tuple[Flavour, ...], platform: str) -> str:
    """What a remedy keeps: the device's; else the special one that somebody took the trouble to install."""
    plain = PLAIN.get(platform, PACKAGE)
    if device == "cpu":
        return plain
    if device is not None:
        return PROVIDERS[device].distribution
    special = {provider.distribution for provider in PROVIDERS.values()} - {PACKAGE, plain}
    return next((flavour.name for flavour in flavours if flavour.name in special), plain)


def _folder() -> Path | None:
    """Where `onnxruntime` would be loaded from, without loading it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.parent


def _normal(name: str) -> str:
    """As pip writes a name: https://packaging.python.org/en/latest/specifications/name-normalization/."""
    return name.lower().replace("_", "-").replace(".", "-")
