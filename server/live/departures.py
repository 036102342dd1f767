"""Removes the metrics of adapters that are served no longer, once nothing of theirs is under way."""

from __future__ import annotations

from adapters.registry.served import Registry
from server.metrics.metrics import Metrics


class Departures:
    """Follows which versions leave a server's registry. Used on the event loop alone."""

    def __init__(self, registry: Registry, metrics: Metrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._known = self._present()
        self._gone: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Forget who went since the last look, and who went before and was still at work then."""
        present = self._present()
        self._gone = (self._gone | self._known) - present
        self._known = present
        idle = {name for name in self._gone if not self._metrics.in_use(*name)}
        self._gone -= idle
        for alias, version in idle:
            self._metrics.forget_version(alias, version)
        for alias in {alias for alias, _ in idle} - {alias for alias, _ in present | self._gone}:
            self._metrics.forget_alias(alias)

    def _present(self) -> set[tuple[str, str]]:
        return {(adapter.alias, adapter.version) for adapter in self._registry.adapters()}
