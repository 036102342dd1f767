"""Follows the registry on disk: what other processes add, promote or retire reaches the running server.

A promoted version is loaded before its alias moves, and the one before is unloaded once nothing uses it, so
that no request is dropped. Every look costs names and times; only new versions are read.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from adapters.bases import FoundBase
from adapters.errors import AdapterRejectedError, FileRefusedError
from adapters.ledger.chain import LEDGER_FILE
from adapters.ledger.provenance import Provenance
from adapters.lora.manifest import Adapter
from adapters.registry.finder import RegistryLook, look_at_registry
from adapters.registry.listing import fingerprint
from adapters.registry.pointers import active_versions
from routing.route import Router
from server.config.values import SettingsError
from server.errors import AdapterNotLoadedError, AdapterRefusedError, EngineError
from server.live.catalogue import contested
from server.live.departures import Departures
from server.serving.generation import Generation

SWEEP_SECONDS = 10.0
"""Between two looks at what the engine holds, where the registry is not looked at."""

log = logging.getLogger("oneseek.registry")


@dataclass(frozen=True, slots=True, kw_only=True)
class Follow:
    """What is followed, and how often."""

    home: Path
    """The folder that holds `registry`."""
    base: FoundBase
    seconds: float
    """Between two looks; 0 looks only where something here has made a change."""
    provenance: Callable[[], Provenance | None]
    """What tells which adapters may enter; None for all. Raises `LedgerError`."""
    router: Callable[[], Router]
    """Makes a router for the languages that the registry has now. Raises `SettingsError`."""


class Watch:
    """Keeps one server's registry as the folder is."""

    def __init__(self, generation: Generation, follow: Follow) -> None:
        self._generation = generation
        self._registry = generation.registry
        self.follow = follow
        self._seen: str | None = None
        self._said: frozenset[str] = frozenset()
        self._unloading: dict[asyncio.Task[None], str] = {}
        self._unnamed: frozenset[str] = frozenset()
        self._departures = Departures(generation.registry, generation.metrics)
        self.changing = asyncio.Lock()
        """Held by whoever changes which adapters this server has."""
        self.loaded: dict[str, Adapter] = {}
        """What was loaded over HTTP and is on no disk's registry, by full name in lower case."""

    async def run(self) -> None:
        """Look again and again, until cancelled; without an interval, at nothing but the engine."""
        try:
            while True:
                await asyncio.sleep(self.follow.seconds or SWEEP_SECONDS)
                try:
                    await self.look()
                except (OSError, FileRefusedError) as error:
                    self.say({f"the registry cannot be followed: {error}"})
        finally:
            for task in self._unloading:
                task.cancel()

    async def look(self) -> None:
        """Follow what has changed since the last look, if anything has.

        Raises `OSError` and `FileRefusedError` where the registry cannot be read; then nothing has changed.
        """
        async with self.changing:
            self._sweep()
            if self.follow.seconds:
                await self.look_now()

    async def look_now(self) -> None:
        """Follow at once, for whoever holds `changing`; raises as `look` does."""
        place = self.follow.home / "registry"
        mark = await asyncio.to_thread(self._mark)
        if mark == self._seen:
            return
        known = frozenset(a.path for a in self._registry.adapters() if not self.is_loaded(a))
        found = await asyncio.to_thread(look_at_registry, self.follow.home, self.follow.base, known)
        recorded = await asyncio.to_thread(self.follow.provenance) if found.adapters else None
        languages = self._registry.languages()
        problems = {str(error) for error in found.refused}
        for adapter in found.adapters:
            try:
                if recorded is not None:
                    recorded.require(adapter)
                self._registry.add(adapter)
                log.info("%s is served now", adapter.full_name)
            except AdapterRejectedError as error:
                problems.add(str(error))
        done = await self._activate(found, problems)
        done = await self._generation.rollouts.follow(found.actives, problems) and done
        self._remove(found, place, problems)
        self._departures.look()
        if self._registry.languages() != languages:
            problems |= await self._reroute()
        self.say(problems)
        if done:
            self._seen = mark

    def is_loaded(self, adapter: Adapter) -> bool:
        """Whether it was loaded over HTTP."""
        return self.loaded.get(adapter.full_name.lower()) == adapter

    async def reroute(self) -> None:
        """Have routing learn which languages there are now."""
        for problem in await self._reroute():
            log.warning("%s", problem)

    def _mark(self) -> str:
        """Text that changes with the registry, and with the ledger, which may come to know an adapter."""
        ledger = self.follow.home / "ledger" / LEDGER_FILE
        size = ledger.stat().st_size if ledger.is_file() else 0
        return f"{size}\n{fingerprint(self.follow.home / 'registry')}"

    async def _activate(self, found: RegistryLook, problems: set[str]) -> bool:
        """Move the aliases whose promoted version is another; False where one should be tried again."""
        wanted, notes = active_versions(self._registry.adapters(), found.actives)
        problems |= set(notes)
        done = True
        for alias, version in wanted.items():
            before = self._registry.active(alias)
            after = self._registry.resolve(f"{alias}@{version}")
            if after == before:
                continue
            try:
                await self._generation.residency.ensure(after)
            except AdapterRefusedError as error:
                problems.add(f"{after.full_name} is promoted and refused by the engine: {error}")
                continue
            except (AdapterNotLoadedError, EngineError) as error:
                problems.add(f"{after.full_name} is promoted and not loaded yet: {error}")
                done = False
                continue
            self._registry.activate(alias, version)
            log.info("%s stands for %s now; before, for %s", after.alias, after.full_name, before.full_name)
            self.unload(before)
        return done

    def _remove(self, found: RegistryLook, place: Path, problems: set[str]) -> None:
        """Forget the versions that are retired or gone."""
        for adapter in self._registry.adapters():
            if self.is_loaded(adapter):
                continue
            if adapter.path.is_relative_to(place) and adapter.path not in found.served:
                try:
                    self._registry.remove(adapter.full_name)
                except AdapterRejectedError as error:
                    problems.add(str(error))
                    continue
                log.info("%s is served no longer", adapter.full_name)
                self.unload(adapter)

    def _sweep(self) -> None:
        """Unload what no name has stood for since the last look: a late request has brought it back."""
        named = {adapter.digest for adapter in self._registry.adapters()}
        unnamed = frozenset(self._generation.engine.state().resident.keys() - named)
        for digest in unnamed & self._unnamed - {*self._unloading.values()}:
            self._drop(digest)
        self._unnamed = unnamed
        self._departures.look()

    def unload(self, adapter: Adapter) -> None:
        """Have the engine drop it once no request uses it, unless an alias stands for the same weights."""
        actives = (self._registry.active(alias) for alias in self._registry.aliases())
        if adapter.digest not in {active.digest for active in actives}:
            self._drop(adapter.digest)
        self._departures.look()

    def _drop(self, digest: str) -> None:
        async def unload() -> None:
            with suppress(EngineError):
                await self._generation.engine.unload(digest)

        task = asyncio.create_task(unload())
        self._unloading[task] = digest
        task.add_done_callback(self._unloading.pop)

    async def _reroute(self) -> set[str]:
        """Why it could not be done, and which languages have too many adapters now."""
        problems = set(contested(self._registry))
        try:
            self._generation.router = await asyncio.to_thread(self.follow.router)
        except SettingsError as error:
            problems.add(f"routing stays as it was: {error}")
        return problems

    def say(self, problems: set[str]) -> None:
        """Log what is new among the problems, so that a lasting one is one line."""
        for problem in sorted(problems - self._said):
            log.warning("%s", problem)
        self._said = frozenset(problems)
