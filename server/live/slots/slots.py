"""Who holds which adapter in the engine, and which one makes way: least recently used, never one in use.

Knows no loads and no waiting; `server.live.slots.residency` does that.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection

from server.engines.base import Engine
from server.live.slots.priorities import Priorities


class Slots:
    """The slots of one engine. Used on the event loop alone."""

    def __init__(self, engine: Engine, priorities: Priorities) -> None:
        self._engine = engine
        self._priorities = priorities
        self._leases = Counter[str]()
        self._used: dict[str, int] = {}
        self._clock = 0
        self.closing: str | None = None
        """What is given to no new request, so that its slot comes free."""

    @property
    def count(self) -> int:
        """How many there are."""
        return self._engine.info.max_adapters

    @property
    def free(self) -> bool:
        """Whether one is empty; an adapter on its way in or out still takes its own."""
        return len(self._engine.residents.held) < self.count

    def available(self, digest: str) -> bool:
        """Whether a request can have it at once."""
        return digest in self._engine.residents.open and digest != self.closing

    def leaving(self, digest: str) -> bool:
        """Whether it is being unloaded: it can be loaded again once it has gone."""
        residents = self._engine.residents
        return digest in residents.held and digest not in residents.open

    def take(self, digest: str) -> None:
        """A request begins to need it."""
        self._leases[digest] += 1
        self.touch(digest)

    def give_back(self, digest: str) -> None:
        """The request needs it no longer, or the engine itself counts the use by now."""
        self._leases[digest] -= 1
        if not self._leases[digest]:
            del self._leases[digest]

    def touch(self, digest: str) -> None:
        """It was used just now."""
        self._clock += 1
        self._used[digest] = self._clock

    def in_use(self, digest: str) -> bool:
        """Whether a request needs it, before the engine or in it."""
        return self._leases[digest] > 0 or self._engine.residents.in_use(digest)

    def spare(self, digest: str) -> bool:
        """Whether `digest` can be kept for good and a slot is left for others."""
        return len(self._priorities.kept() | {digest}) < self.count

    def most_with(self, digests: Collection[str]) -> int:
        """How many slots a request for `digests` can ever have together."""
        pinned = {adapter.digest for adapter in self._priorities.pinned_adapters()}
        return self.count - len(pinned.difference(digests))

    def victim(self, needed: Collection[str]) -> str | None:
        """The idle adapter that makes way for what needs `needed`; None if all are in use."""
        return self._first(needed, lambda digest: not self.in_use(digest))

    def close_one(self, needed: Collection[str]) -> None:
        """Give an adapter that is in use to no new request, so that its slot comes free."""
        if self.closing is None:
            self.closing = self._first(needed, lambda _: True)

    def _first(self, needed: Collection[str], suits: Callable[[str], bool]) -> str | None:
        """The least recently used of those that suit, preferred ones last."""
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
