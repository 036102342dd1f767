"""The other bases of a server, to check that a new adapter's names and languages do not collide with
theirs.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from adapters.bases import FoundBase
from adapters.errors import AdapterRejectedError, FileRefusedError, format_value
from adapters.lora.manifest import Adapter
from adapters.registry.discovery.adapter_folder import ServedBase
from adapters.registry.discovery.finder import read_named
from adapters.registry.served import ServedAdapters


@dataclass(frozen=True)
class Neighbour:
    """Another base of the same server, with its adapters."""

    base: FoundBase
    served: ServedAdapters

    @cached_property
    def _fit(self) -> ServedBase:
        return ServedBase.read(self.base, self.served.base_digest)

    def fits(self, folder: Path) -> bool:
        """True if the adapter in `folder` fits this base. Reads the adapter."""
        try:
            read_named(str(folder), self._fit)
        except (FileRefusedError, ValueError):
            return False
        return True


class Neighbours:
    """All bases of a server except the one whose adapters are being changed."""

    def __init__(self, others: Sequence[Neighbour] = ()) -> None:
        self._others = tuple(others)

    def folders(self) -> Collection[Path]:
        """Return the folders of all adapters that the server's other bases serve."""
        return {adapter.path for other in self._others for adapter in other.served.adapters()}

    def speak(self, language: str) -> bool:
        """True if another base has an adapter for the language."""
        return any(
            language in one.served.languages() or language in one.served.contested_languages()
            for one in self._others
        )

    def fit(self, folder: Path) -> list[str]:
        """Return the names of the bases that the adapter in `folder` fits. Reads the adapter for each of
        them.
        """
        folder = folder if folder.is_dir() else folder.parent
        return [other.served.base_name for other in self._others if other.fits(folder)]

    def ambiguous(self, adapter: Adapter) -> str | None:
        """Return why `adapter` is not served, if it fits other bases too; else None."""
        digests = {other.served.base_digest for other in self._others}
        if not self._others or (adapter.base_digest is not None and adapter.base_digest not in digests):
            return None
        others = self.fit(adapter.path)
        if not others:
            return None
        return (
            f"adapter {adapter.full_name} is not served, because it fits several bases, also "
            f"{', '.join(others)}; list the adapter under bases.NAME.adapters of one base, and restart"
        )

    def guard(self, alias: str) -> None:
        """Raise `AdapterRejectedError` if `alias` is the alias of an adapter on another base, or another
        base's name.
        """
        for other in self._others:
            name = other.served.base_name
            if alias.lower() in other.served.snapshot.by_alias or alias.lower() == name.lower():
                raise AdapterRejectedError(
                    f"the alias {format_value(alias)} is in use on the base {name}; choose another alias"
                )
