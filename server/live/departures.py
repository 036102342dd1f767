"""Removes the metrics of adapters that are no longer served, once their last request has ended."""

from __future__ import annotations

from server.live.runtime import Runtime


class Departures:
    """Finds versions that one base no longer serves, and removes their metrics. Use it on the event loop
    only.
    """

    def __init__(self, runtime: Runtime) -> None:
        self._served = runtime.served
        self._metrics = runtime.metrics
        self._known = self._present()
        self._gone: set[tuple[str, str]] = set()

    def look(self) -> None:
        """Remove the metrics of versions that are no longer served and have no running requests."""
        present = self._present()
        self._gone = (self._gone | self._known) - present
        self._known = present
        idle = {name for name in self._gone if not self._metrics.in_use(*name)}
        self._gone -= idle
        kept = self._metrics.served_names() | self._gone  # by any base
        for alias, version in idle - kept:
            self._metrics.forget_version(alias, version)
        for alias in {alias for alias, _ in idle} - {alias for alias, _ in kept}:
            self._metrics.forget_alias(alias)

    def _present(self) -> set[tuple[str, str]]:
        return {(adapter.alias, adapter.version) for adapter in self._served.adapters()}
