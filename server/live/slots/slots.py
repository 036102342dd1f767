"""Keeps track of the engine's slots: which adapter each holds, and which to evict (least recently used, never
in use).

`server.live.slots.residency` does the loading and waiting.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from server.engines.base import Engine
from server.live.slots.priorities import Priorities


class Slots:
    """Which adapters the slots of one engine hold, and which are in use. Use it on the event loop only."""

    def __init__(self, engine: Engine, priorities: Priorities) -> None:
        self._engine = engine
        self._priorities = priorities
        self._leases = Counter[str]()
        self._used: dict[str, int] = {}
        self._clock = 0
        self.closing: str | None = None
        """Adapter that accepts no new requests, so that its slot becomes free."""

    @property
    def count(self) -> int:
        """Number of adapter slots in the engine."""
        return self._engine.info.max_adapters

    @property
    def free(self) -> bool:
        """True if a slot is empty. An adapter that is being loaded or unloaded still takes one."""
        return len(self._engine.residents.held) < self.count

    def available(self, digest: str) -> bool:
        """True if the adapter is in the engine and accepts requests."""
        return digest in self._engine.residents.open and digest != self.closing

    def leaving(self, digest: str) -> bool:
        """True if the adapter is being unloaded. It can be loaded again after that."""
        residents = self._engine.residents
        return digest in residents.held and digest not in residents.open

    def take(self, digest: str) -> None:
        """Record that one more request needs the adapter."""
        self._leases[digest] += 1
        self.touch(digest)

    def give_back(self, digest: str) -> None:
        """Record that a request no longer needs the adapter, or that the engine now counts that use
        itself.
        """
        self._leases[digest] -= 1
        if not self._leases[digest]:
            del self._leases[digest]

    def touch(self, digest: str) -> None:
        """Record that the adapter was just used."""
        self._clock += 1
        self._used[digest] = self._clock

    def in_use(self, digest: str) -> bool:
        """True if a request needs the adapter, waiting for it or running in the engine."""
        return self._leases[digest] > 0 or self._engine.residents.in_use(digest)

    def spare(self, digest: str) -> bool:
        """True if the adapter `digest` can be kept in the engine for good and a slot is left for other
        adapters.
        """
        return len(self._priorities.kept() | {digest}) < self.count

    def most_with(self, digests: Collection[str]) -> int:
        """Return how many adapters a request for `digests` can have: all slots except those of other pinned
        adapters.
        """
        pinned = {adapter.digest for adapter in self._priorities.pinned_adapters()}
        return self.count - len(pinned.difference(digests))

    def victim(self, needed: Collection[str]) -> str | None:
        """Return the idle adapter to evict for a request that needs `needed`; None if all adapters are in
        use.
        """
        return self._first(needed, lambda digest: not self.in_use(digest))

    def close_one(self, needed: Collection[str]) -> None:
        """Choose an adapter in use, and let it accept no new requests, so that its slot becomes free."""
        if self.closing is None:
            self.closing = self._first(needed, lambda _: True)

    def _first(self, needed: Collection[str], suits: Callable[[str], bool]) -> str | None:
        """Return the least recently used adapter that can be evicted and for which `suits` returns True.
        Preferred adapters come last.
        """
        here = self._engine.residents.open
        self._used = {digest: at for digest, at in self._used.items() if digest in here}
        kept = self._priorities.kept()
        found = [digest for digest in here if digest not in kept and digest not in needed and suits(digest)]
        if not found:
            return None
        late = {adapter.digest for adapter in self._priorities.preferred()}

        def order(digest: str) -> tuple[bool, bool, int]:
            return digest != self.closing, digest in late, self._used.get(digest, 0)

        return min(found, key=order)
