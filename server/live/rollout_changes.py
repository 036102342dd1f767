"""Canaries and shadows set over HTTP: every version is in the engine before requests are divided."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from adapters.registry.listing import Held, Shelf
from adapters.registry.pointers import Line
from adapters.registry.store import Division
from adapters.registry.traffic import checked_shares, plain_shares
from server.errors import bad_field
from server.live.follower import Watch
from server.live.registry_changes import Administration
from server.serving.generation import Generation


@dataclass(frozen=True, slots=True)
class Divided:
    """How the requests for an alias are divided now."""

    active: Held
    line: Line
    live: bool
    """Whether this server divides them so; the log says why not."""


class Dividing:
    """Divides the requests of one server, and of all that follow its registry."""

    def __init__(self, generation: Generation, watch: Watch, administration: Administration) -> None:
        self._generation = generation
        self._watch = watch
        self._administration = administration

    async def canary(self, alias: str, shares: Mapping[str, float]) -> Divided:
        """Divide the requests for `alias`: version → percent, the active one among them, 100 in all."""

        def wanted(shelf: Shelf) -> Iterable[Held]:
            active = self._active(shelf, alias)
            try:
                checked_shares(shares, active.version)
            except ValueError as error:
                raise bad_field("shares", str(error), code="invalid_value") from None
            return [self._administration.found(shelf, f"{active.alias}@{version}") for version in shares]

        return await self._divide(wanted, lambda: self._administration.store.canary(alias, shares))

    async def shadow(self, alias: str, version: str, share: float) -> Divided:
        """Have `version` answer `share` percent of the requests for `alias` as well, unseen."""

        def wanted(shelf: Shelf) -> Iterable[Held]:
            active = self._active(shelf, alias)
            return [self._administration.found(shelf, f"{active.alias}@{version}")]

        name = f"{alias}@{version}"
        return await self._divide(wanted, lambda: self._administration.store.shadow(name, share))

    async def settle(self, alias: str, reason: str) -> Divided:
        """Give every request for `alias` to its active version again."""

        def wanted(shelf: Shelf) -> Iterable[Held]:
            self._active(shelf, alias)
            return ()

        return await self._divide(wanted, lambda: self._administration.store.settle(alias, reason))

    async def told(self, alias: str) -> dict[str, Any]:
        """How requests are divided here, what the registry asks for, and what was measured."""
        shelf = await self._administration.shelf()
        active = self._active(shelf, alias)
        names, key = self._generation.registry.snapshot, active.alias.lower()
        line = shelf.actives.line(active.alias)
        return {
            "alias": active.alias,
            "active": active.version,
            **plain_shares(names.splits.get(key), names.shadows.get(key)),
            "wanted": plain_shares(line.split, line.shadow),
            "trials": [
                trial for trial in self._generation.rollouts.told() if trial["adapter"].lower() == key
            ],
        }

    def _active(self, shelf: Shelf, alias: str) -> Held:
        if "@" in alias:
            raise bad_field("name", f"{alias[:128]} names a version; say its alias.", code="alias_needed")
        return self._administration.found(shelf, alias)

    async def _divide(
        self, wanted: Callable[[Shelf], Iterable[Held]], work: Callable[[], Division]
    ) -> Divided:
        async with self._watch.changing:
            async with self._administration.ready(*wanted(await self._administration.shelf())):
                done = await self._administration.asked(work)
            await self._administration.follow_now()
            names, key = self._generation.registry.snapshot, done.active.alias.lower()
            here = names.splits.get(key), names.shadows.get(key)
            return Divided(done.active, done.after, here == (done.after.split, done.after.shadow))
