"""Windows ML's catalogue of execution providers: lists those for this machine, and installs one on demand.

The protocols describe the parts of the Python package `windowsml` that are used here. Only `install`
downloads anything: Windows downloads a missing provider when it is made ready. This module does not import
ONNX Runtime.
"""

from __future__ import annotations

import importlib
import logging
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal, Protocol, cast

from server.errors import EngineError, first_line

logger = logging.getLogger(__name__)
PACKAGE = "windowsml"
PINNED = "2.5.96"
"""Version of the package `windowsml` in pyproject.toml. It works with one version of `onnxruntime-windowsml`
only.
"""

ProviderState = Literal["ready", "installed", "absent"]
"""State of an execution provider. `ready`: usable by this process. `installed`: on this machine, but not yet
ready. `absent`: not installed.
"""
_STATES: dict[str, ProviderState] = {"Ready": "ready", "NotReady": "installed", "NotPresent": "absent"}
"""Maps each member of `windowsml.EpReadyState` (version 2.5.96) to a provider state."""


class CatalogueError(EngineError):
    """Windows ML's catalogue or one of its execution providers cannot be used.

    The message says what to do.
    """


class EnumMember(Protocol):
    """A member of an enumeration in the Python package `windowsml`."""

    @property
    def name(self) -> str:
        """Name of this member of a `windowsml` enumeration."""
        ...


class CatalogueEntry(Protocol):
    """An execution provider in Windows ML's catalogue (`windowsml.ExecutionProvider`).

    Each property queries Windows again.
    """

    @property
    def name(self) -> str:
        """Name of the execution provider in ONNX Runtime."""
        ...

    @property
    def version(self) -> str:
        """Version of the execution provider's package; empty until it is installed."""
        ...

    @property
    def library_path(self) -> str:
        """Path of the library to register with ONNX Runtime; empty until the execution provider is ready."""
        ...

    @property
    def ready_state(self) -> EnumMember:
        """Tells if the execution provider is installed and ready; its name is a member of
        `windowsml.EpReadyState`.
        """
        ...

    @property
    def certification(self) -> EnumMember:
        """Tells if Microsoft certified the execution provider; its name is a member of
        `windowsml.EpCertification`.
        """
        ...

    def ensure_ready(self) -> None:
        """Make the execution provider usable by this process, and download it if it is absent.

        Raises `OSError` if that fails.
        """
        ...


class ProviderCatalogue(Protocol):
    """The parts of `windowsml.EpCatalog`, Windows ML's catalogue of execution providers, that are used
    here.
    """

    def find_all_providers(self) -> Sequence[CatalogueEntry]:
        """Return the execution providers for this machine's hardware, installed or not.

        Raises `OSError` if Windows does not answer.
        """
        ...


@dataclass(frozen=True, slots=True)
class Offer:
    """An execution provider that Windows ML offers for this machine, installed or not."""

    name: str
    version: str
    state: ProviderState
    certified: bool
    """True if Microsoft has certified the provider for this machine."""


@cache
def open_catalogue(platform: str = sys.platform) -> ProviderCatalogue:
    """Open this machine's Windows ML catalogue. It stays open until the process ends, since its entries must
    not outlive it.

    Raises `CatalogueError` if the package `windowsml` is not installed, or Windows has no catalogue.
    """
    try:
        package = cast("Any", importlib.import_module(PACKAGE))
        return cast("ProviderCatalogue", package.EpCatalog())
    except ImportError:
        if platform != "win32":
            raise CatalogueError(
                f"the device {PACKAGE} works on Windows only; use --device webgpu or --device cpu"
            ) from None
        raise CatalogueError(
            f"the device {PACKAGE} needs a package that is not installed; run: pip install "
            f"{PACKAGE}=={PINNED}"
        ) from None
    except OSError as error:
        raise CatalogueError(
            f"device {PACKAGE} needs the Windows ML catalogue of Windows 11 24H2 or later, which cannot be "
            f"opened: {first_line(error)}; use --device directml"
        ) from error


def list_offers(catalogue: ProviderCatalogue) -> tuple[Offer, ...]:
    """List the execution providers in Windows ML's catalogue, sorted by name.

    Raises `CatalogueError` if Windows does not answer.
    """
    return tuple(sorted((offer for _, offer in _look(catalogue)), key=lambda offer: offer.name))


def ready_entries(catalogue: ProviderCatalogue) -> list[CatalogueEntry]:
    """Make all installed execution providers usable by this process, without downloads. Return their
    catalogue entries.

    Providers that Windows cannot make ready are left out. Raises `CatalogueError` if Windows does not answer.
    """
    present = [entry for entry, offer in _look(catalogue) if offer.state != "absent"]
    return [entry for entry in present if _is_made_ready(entry)]


def install(catalogue: ProviderCatalogue, name: str) -> Offer:
    """Let Windows download and install the execution provider `name`, which may take minutes. Does nothing if
    it is installed.

    `name` is case-insensitive. Raises `CatalogueError` if Windows does not offer the provider or cannot
    download it.
    """
    found = _look(catalogue)
    entries = [entry for entry, offer in found if offer.name.lower() == name.lower()]
    if not entries:
        offered = ", ".join(sorted(offer.name for _, offer in found)) or "none"
        raise CatalogueError(
            f"Windows ML has no execution provider {name!r} for this machine; it offers: {offered}"
        )
    try:
        entries[0].ensure_ready()
    except OSError as error:
        raise CatalogueError(
            f"Windows could not install the execution provider {entries[0].name}: {first_line(error)}; "
            "check the network and Windows Update, and try again"
        ) from error
    return _offer(entries[0])


def missing(offers: Iterable[Offer]) -> list[Offer]:
    """Return the certified execution providers that are not installed on this machine yet."""
    return [offer for offer in offers if offer.certified and offer.state == "absent"]


def _look(catalogue: ProviderCatalogue) -> list[tuple[CatalogueEntry, Offer]]:
    """Return all execution providers in Windows ML's catalogue.

    Raises `CatalogueError` if the catalogue does not answer.
    """
    try:
        return [(entry, _offer(entry)) for entry in catalogue.find_all_providers()]
    except OSError as error:
        raise CatalogueError(
            f"Windows ML's catalogue of execution providers does not answer: {first_line(error)}; try again"
        ) from error


def _offer(entry: CatalogueEntry) -> Offer:
    state = _STATES.get(entry.ready_state.name, "absent")
    return Offer(entry.name, entry.version, state, entry.certification.name == "Certified")


def _is_made_ready(entry: CatalogueEntry) -> bool:
    try:
        entry.ensure_ready()
    except OSError as error:
        logger.warning(
            "Windows could not prepare the Windows ML provider %s %s, so its devices are not used: %s",
            entry.name,
            entry.version,
            first_line(error),
        )
        return False
    return bool(entry.library_path)
