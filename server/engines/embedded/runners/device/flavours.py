"""Checks that exactly one package of ONNX Runtime is installed, and that it supports the chosen device.

Every such package (`onnxruntime`, `onnxruntime-webgpu`, `onnxruntime-windowsml`…), here called a flavour,
puts its files into the same folder, `onnxruntime`. Two flavours in one environment overwrite each other's
files, which pip does not prevent and which may fail late or not at all. This module does not import ONNX
Runtime.
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
    "onnxruntime-windowsml": "1.28.3.202610130701",
}
"""Versions of the ONNX Runtime packages that are pinned in pyproject.toml."""
PLAIN = {"win32": "onnxruntime-windowsml"}
"""Maps a platform to the ONNX Runtime package that OneSeek depends on there. On other platforms this is
`onnxruntime`.
"""


class FlavourError(EngineError):
    """ONNX Runtime is missing, lacks the chosen device, or is installed from several packages.

    The message has the pip commands to fix this.
    """


@dataclass(frozen=True, slots=True, order=True)
class Flavour:
    """An installed package (distribution) that provides the Python module `onnxruntime`."""

    name: str
    version: str

    def __str__(self) -> str:
        return f"{self.name} {self.version}"


def find_installed(folder: Path | None = None) -> tuple[Flavour, ...]:
    """List the ONNX Runtime packages that have files in the folder from which `import onnxruntime` loads, or
    in `folder`. They are sorted by name.
    """
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
    """Raise `FlavourError` unless exactly one ONNX Runtime package is installed.

    `device` is the device to be used (None: any); it decides which package the suggested commands keep.
    `check_provider` checks that the package supports the device.
    """
    flavours = tuple(found)
    if len(flavours) == 1:
        return
    keep = _wanted(device, flavours, platform)
    if not flavours:
        raise FlavourError(f"ONNX Runtime is not installed in this Python environment; run: {install(keep)}")
    names = " and ".join(map(str, flavours))
    raise FlavourError(
        f"more than one ONNX Runtime package is installed, and they overwrite each other's files: {names}; "
        f"run: {exchange_commands([flavour.name for flavour in flavours], keep)}"
    )


def check_provider(provider: Provider, available: Iterable[str], found: Iterable[Flavour]) -> None:
    """Raise `FlavourError` unless the installed ONNX Runtime package has the execution provider that the
    device needs.
    """
    flavours = tuple(found)
    if provider.ort in available:
        return
    have = " and ".join(map(str, flavours)) or "the installed ONNX Runtime"
    problem = (
        f"--device {provider.name} needs {provider.distribution}, but {have} does not have {provider.ort}"
    )
    if not can_install(provider):
        raise FlavourError(
            f"the device cannot be used here: {problem}; it works on Windows only, so use --device webgpu or "
            "--device cpu"
        )
    raise FlavourError(
        f"the device cannot be used yet: {problem}; run: "
        f"{exchange_commands([flavour.name for flavour in flavours], provider.distribution)}"
    )


def can_install(provider: Provider, platform: str = sys.platform) -> bool:
    """Return True if the ONNX Runtime package that the device needs exists for this platform."""
    return provider.name not in ("directml", "windowsml") or platform == "win32"


def install(name: str) -> str:
    """Return the pip command that installs the ONNX Runtime package `name`."""
    version = PINNED.get(name)
    return f"pip install {name}=={version}" if version else f"pip install {name}"


def exchange_commands(names: Iterable[str], keep: str) -> str:
    """Return the pip commands that uninstall all packages in `names` and then install `keep`."""
    gone = " ".join(sorted(names))
    return f"pip uninstall -y {gone}  and then  {install(keep)}" if gone else install(keep)


def _wanted(device: DeviceName | None, flavours: tuple[Flavour, ...], platform: str) -> str:
    """Choose the ONNX Runtime package to keep: the one that `device` needs.

    If `device` is None, it is an installed package other than the platform's default package, else the
    default package.
    """
    plain = PLAIN.get(platform, PACKAGE)
    if device == "cpu":
        return plain
    if device is not None:
        return PROVIDERS[device].distribution
    special = {provider.distribution for provider in PROVIDERS.values()} - {PACKAGE, plain}
    return next((flavour.name for flavour in flavours if flavour.name in special), plain)


def _folder() -> Path | None:
    """Find the folder that `import onnxruntime` would load from, without importing it."""
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or spec.origin is None:
        return None
    return Path(spec.origin).parent.parent


def _normal(name: str) -> str:
    """Normalise a package name as in
    https://packaging.python.org/en/latest/specifications/name-normalization/.
    """
    return name.lower().replace("_", "-").replace(".", "-")
