"""Decides which adapters appear in metrics under their own name, so that a scrape stays fast with thousands
of adapters.

These are the adapters in the engine, and the 200 others with the most uses in the last minutes. All other
adapters share the name `other`.
"""

from __future__ import annotations

import heapq
import time
from collections.abc import Callable

from server.metrics.measured import MeasuredBases

NO_ALIASES = frozenset({"base", "blend", "external", "none", "unknown"})
"""Values of the label `adapter` for requests that no single adapter answers."""
OTHER = "other"
"""Value of the label `adapter` for all adapters that have no series of their own."""
MOST_USED = 200
"""Number of adapters outside the engine that have series of their own."""
HALF_LIFE = 600.0
"""Seconds after which all earlier uses of an adapter count half."""
PAUSE = 1.0
"""Seconds between two decisions about which adapters outside the engine get series of their own."""

VersionName = tuple[str, str]
"""The alias and version of an adapter, as labels of a metric."""


class ShownAdapters:
    """Decides which names adapters have in metrics. Use it on the event loop; only `uses` is thread-safe.

    `in_use(alias, version)` is true while work is running that will be counted under this name.
    `forget(alias, version, last)` removes the series of a version, and those of its alias if `last` is true.
    """

    def __init__(
        self,
        served: MeasuredBases,
        in_use: Callable[[str, str], bool],
        forget: Callable[[str, str, bool], None],
    ) -> None:
        self._served = served
        self._in_use = in_use
        self._forget = forget
        self._shown: dict[str, set[str]] = {}
        """Maps each alias to its versions that have series of their own."""
        self._count = 0
        self._uses: dict[VersionName, float] = {}
        self._halved = self._looked = time.monotonic()

    def used(self, alias: str, version: str) -> None:
        """Count a use of an adapter that was chosen for a request."""
        if alias not in NO_ALIASES:
            self._uses[alias, version] = self._uses.get((alias, version), 0.0) + 1

    def uses(self, alias: str, version: str) -> float:
        """Return how often an adapter was used recently. You can call it from any thread."""
        return self._uses.get((alias, version), 0.0)

    def version_name(self, alias: str, version: str) -> VersionName:
        """Return the alias and version that stand for an adapter in metrics. See
        `SeriesNames.version_name`.
        """
        if alias in NO_ALIASES or version in self._shown.get(alias, ()) or self._admit(alias, version):
            return alias, version
        return OTHER, ""

    def alias_name(self, alias: str) -> str:
        """Return the alias that stands for an adapter in metrics. See `SeriesNames.alias_name`."""
        return alias if alias in NO_ALIASES or alias in self._shown else OTHER

    def departed(self, alias: str, version: str) -> None:
        """Forget the uses of an adapter that is no longer served, and stop showing it by its own name."""
        self._uses.pop((alias, version), None)
        self._hide(alias, version)

    def _admit(self, alias: str, version: str) -> bool:
        """Give the adapter series of its own if there is room, or if it is used more than an adapter that has
        its own series. Returns True if it has its own series now.
        """
        if self._count >= MOST_USED + self._served.slots:
            now = time.monotonic()
            if now - self._looked < PAUSE and not self._served.is_resident(alias, version):
                return False
            self._looked = now
            kept = self._served.resident() | self._most_used(now)
            if (alias, version) not in kept:
                return False
            for name in [(one, each) for one, versions in self._shown.items() for each in versions]:
                if name not in kept and not self._in_use(*name):
                    self._forget(*name, self._hide(*name))
        self._shown.setdefault(alias, set()).add(version)
        self._count += 1
        return True

    def _hide(self, alias: str, version: str) -> bool:
        """Stop showing a version by its own name. Returns True if no version of its alias is shown any
        more.
        """
        versions = self._shown.get(alias, set())
        if version in versions:
            versions.remove(version)
            self._count -= 1
        if not versions:
            self._shown.pop(alias, None)
        return not versions

    def _most_used(self, now: float) -> set[VersionName]:
        if now - self._halved >= HALF_LIFE:
            self._halved = now
            self._uses = {name: uses / 2 for name, uses in self._uses.items() if uses >= 1}
        return {*heapq.nlargest(MOST_USED, self._uses, key=self._uses.__getitem__)}
