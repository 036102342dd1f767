"""Tells the metrics which adapters each base of a server serves, and which of them are in its engine."""

from __future__ import annotations

from collections.abc import Callable, Collection
from dataclasses import dataclass

from adapters.registry.served import ServedAdapters


@dataclass(frozen=True, slots=True)
class MeasuredBase:
    """The adapters of one base, for metrics. Thread-safe."""

    served: ServedAdapters
    resident: Callable[[], Collection[str]] = tuple
    """Returns the digests of the adapters that are in the engine."""
    slots: int = 0
    """Maximum number of adapters in the engine."""

    def has(self, alias: str, version: str) -> bool:
        """True if this version of an adapter is in the base's engine."""
        versions = self.served.snapshot.by_alias.get(alias.lower(), {})
        adapter = versions.get(version.lower())
        return adapter is not None and adapter.digest in self.resident()


class MeasuredBases:
    """The bases of a server by name, with their adapters, for metrics."""

    def __init__(self) -> None:
        self._bases: dict[str, MeasuredBase] = {}

    def add(self, name: str, base: MeasuredBase) -> None:
        """Add a base that the server serves."""
        self._bases[name] = base

    @property
    def slots(self) -> int:
        """Maximum number of adapters in all engines together."""
        return sum(base.slots for base in self._bases.values())

    def names(self) -> set[tuple[str, str]]:
        """Return the alias and version of every adapter that is served."""
        return {(one.alias, one.version) for base in self._bases.values() for one in base.served.adapters()}

    def resident(self) -> set[tuple[str, str]]:
        """Return the alias and version of every adapter that is in an engine."""
        found: set[tuple[str, str]] = set()
        for base in self._bases.values():
            digests = base.resident()
            found |= {(one.alias, one.version) for one in base.served.adapters() if one.digest in digests}
        return found

    def is_resident(self, alias: str, version: str) -> bool:
        """True if this version of an adapter is in the engine of any base."""
        return any(base.has(alias, version) for base in self._bases.values())
