"""Follows the registry on disk, so that changes by other processes reach the running server.

A promoted version is loaded before its alias moves, and the previous one is unloaded once nothing uses it, so
no request is dropped. A check reads only file names and times; only changed versions are read in full.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Protocol

from adapters.errors import AdapterRejectedError, FileRefusedError, UnknownAdapterError
from adapters.ledger.chain import LEDGER_FILE
from adapters.lora.manifest import Adapter, damaged_adapter
from adapters.registry.discovery.adapter_folder import ServedBase
from adapters.registry.discovery.finder import read_versions
from adapters.registry.listing import RegistryListing, fingerprint, stamp
from adapters.registry.pointers import AliasPointers, active_versions
from server.config.values import SettingsError
from server.errors import AdapterNotLoadedError, AdapterRefusedError, AdapterUnavailableError, EngineError
from server.live.catalogue import describe_contested, without_provenance
from server.live.departures import Departures
from server.live.follow_options import FollowOptions
from server.live.refusals import EngineRefusals
from server.live.runtime import Runtime

SWEEP_SECONDS = 10.0
"""Seconds between checks for unused adapters in the engine, if the registry is not followed."""

log = logging.getLogger("oneseek.registry")


class PointersObserver(Protocol):
    """Applies the registry's canaries and shadows, which divide requests between versions."""

    async def follow(self, pointers: AliasPointers, problems: set[str]) -> bool:
        """Apply the canary splits and shadows in the registry's `pointers`, and add what prevents this to
        `problems`.

        Returns False if this should be tried again.
        """
        ...


class RegistryFollower:
    """Keeps the adapters that one base serves the same as those in the registry's folder.

    `shares` applies changes to how requests are divided between versions.
    """

    def __init__(self, runtime: Runtime, options: FollowOptions, shares: PointersObserver) -> None:
        self._runtime = runtime
        self._shares = shares
        self._served = runtime.served
        self.options = options
        self._seen: str | None = None
        self._base: ServedBase | None = None
        self._said: frozenset[str] = frozenset()
        self._unloading: dict[asyncio.Task[None], str] = {}
        self._unnamed: frozenset[str] = frozenset()
        self._departures = Departures(runtime)
        self.change_lock = asyncio.Lock()
        """Lock for changes to this server's adapters."""
        self.loaded: dict[str, Adapter] = {}
        """Maps each lower-case full name to the adapter that was loaded over HTTP and is not in the
        registry.
        """
        self.damaged: dict[str, str] = {}
        """Maps each lower-case full name to the problem on disk of a version that is served from memory."""
        runtime.residency.on_damage = self._note_damage
        self._refusals = EngineRefusals(runtime, options.home, self.reroute)
        self._stamps = {path: stamp(path) for path in self._kept()}
        self._pointed: frozenset[Path] = frozenset()
        """Folders of the versions that the registry lists but that are outside its own folder."""

    async def run(self) -> None:
        """Check the registry for changes again and again, until cancelled. If the registry is not followed,
        only unload unused adapters.
        """
        try:
            while True:
                await asyncio.sleep(self.options.seconds or SWEEP_SECONDS)
                try:
                    await self.look()
                except (OSError, FileRefusedError) as error:
                    self.log_new(
                        {f"the registry cannot be read, so the server does not apply its changes: {error}"}
                    )
        finally:
            for task in self._unloading:
                task.cancel()

    async def look(self) -> None:
        """Apply the registry's changes since the last check, if there are any.

        Raises `OSError` and `FileRefusedError` if the registry cannot be read; then nothing has changed.
        """
        async with self.change_lock:
            self._sweep()
            if self.options.seconds:
                await self.sync()

    async def sync(self) -> None:
        """Apply the registry's changes now. The caller holds `change_lock`. Raises the errors of `look`."""
        place = self.options.home / "registry"
        mark = await asyncio.to_thread(self._mark)
        if mark == self._seen:
            return
        found = await asyncio.to_thread(RegistryListing.read, place)
        known = self._kept()
        routed, served = self._served.routing_state, found.served_folders
        new = served - known.keys() - {*self.options.neighbours.folders()}
        problems = await self._take_in(found, new) if new else set[str]()
        problems |= await self._look_again(found, known)
        done = await self._activate(found, problems)
        done = await self._shares.follow(found.pointers, problems) and done
        self._remove(found, problems)
        self._pointed = frozenset(entry.folder for entry in found.entries if entry.outside is not None)
        self._departures.look()
        if self._served.routing_state != routed:
            problems |= await self._reroute()
        self.log_new(problems)
        if done:
            self._seen = mark

    async def _take_in(self, found: RegistryListing, folders: Collection[Path]) -> set[str]:
        """Serve the versions in the new `folders`. Returns a problem for each version that is not served."""
        options = self.options
        adapters, refused = await self._read(found, folders)
        recorded = await asyncio.to_thread(options.provenance) if adapters and options.provenance else None
        problems: set[str] = set()
        for error in refused:
            if not await asyncio.to_thread(options.neighbours.fit, error.path):
                problems.add(str(error))
        for adapter in adapters:
            if adapter.problem is not None and await asyncio.to_thread(options.neighbours.fit, adapter.path):
                continue
            if (several := await asyncio.to_thread(options.neighbours.ambiguous, adapter)) is not None:
                problems.add(several)
                continue
            try:
                if recorded is not None and adapter.problem is None:
                    recorded.require(adapter)
                moved = self._is_served_elsewhere(adapter)
                if adapter.problem is None and not moved and not await self._refusals.admits(adapter):
                    continue
                (self._served.replace if moved else self._served.add)(adapter)
            except AdapterRejectedError as error:
                problems.add(str(error))
                continue
            if adapter.problem is None and not moved:
                log.info("now serving %s", adapter.full_name)
        return problems

    def _is_served_elsewhere(self, adapter: Adapter) -> bool:
        """True if the same version with the same contents is already served from another folder."""
        if adapter.problem is not None or not self._served.is_adapter(adapter.full_name):
            return False
        held = self._served.resolve(adapter.full_name)
        return held.digest == adapter.digest and not self.is_loaded(held)

    async def _read(
        self, found: RegistryListing, folders: Collection[Path]
    ) -> tuple[list[Adapter], list[FileRefusedError]]:
        """Read the versions in `folders`. Returns those that can be served, and the errors of the others.

        The files' times are recorded before the files are read, so that a later change is noticed.
        """
        self._stamps |= {folder: stamp(folder) for folder in folders}
        options = self.options
        if self._base is None:
            digest = self._served.base_digest
            self._base = await asyncio.to_thread(ServedBase.read, options.base, digest)
        return await asyncio.to_thread(read_versions, found, options.home / "registry", self._base, folders)

    async def _look_again(self, found: RegistryListing, known: Mapping[Path, Adapter]) -> set[str]:
        """Read versions again whose files have changed. Returns the problems of damaged versions.

        A damaged version that is in the engine is still served from memory. Other damaged versions are
        unavailable until their files are repaired.
        """
        kept = {path: known[path] for path in found.served_folders if path in known}
        changed = {path for path, one in kept.items() if one.problem or stamp(path) != self._stamps.get(path)}
        if not changed:
            return set(self.damaged.values())
        adapters, _ = await self._read(found, changed)
        recorded = await asyncio.to_thread(self.options.provenance) if self.options.provenance else None
        for adapter in adapters:
            allowed = recorded is None or adapter.problem is not None or adapter.digest in recorded.known
            self._found_again(known[adapter.path], adapter if allowed else without_provenance(adapter))
        return set(self.damaged.values())

    def _found_again(self, before: Adapter, now: Adapter) -> None:
        """Serve a version with its new files. If these are damaged, serve it from memory if possible."""
        name = before.full_name.lower()
        self.damaged.pop(name, None)
        in_memory_only = self._runtime.residency.priorities.in_memory_only
        in_memory_only.discard(before.digest)
        if now.problem is None and before.problem is None:
            if now.digest == before.digest:
                return
            if now.place != "registry":  # a folder of the user's, which a new start would read as it is
                self._served.replace(now)
                self.unload(before)
                return
            problem = (
                f"the adapter's files were changed: their digest is {now.digest} instead of {before.digest}"
            )
            now = damaged_adapter(now.path, before.alias, before.version, problem, place=before.place)
        if now.problem is not None and before.problem is None:
            if before.digest in self._runtime.engine.residents.open:
                goes_on = "the server serves it from memory until it stops; restore the adapter's files"
                self.damaged[name] = (
                    f"adapter {before.full_name} is damaged on disk: {now.problem}; {goes_on}"
                )
                in_memory_only.add(before.digest)
                return
            now = replace(
                now,
                alias=before.alias,
                version=before.version,
                language=before.language,
                imported=before.imported,
            )
        if now.full_name.lower() != name:
            return
        self._served.replace(now)
        if now.problem is None:
            log.info("serving adapter %s again: its files are intact", now.full_name)
        else:
            log.error(
                "adapter %s is damaged and not served; restore its files or promote another version: %s",
                now.full_name,
                now.problem,
            )

    def _note_damage(self, adapter: Adapter, problem: str) -> None:
        """Mark a version of the registry as damaged, because loading its files has failed."""
        if not adapter.path.is_relative_to(self.options.home / "registry"):
            return
        with suppress(UnknownAdapterError):
            if self._served.resolve(adapter.full_name) != adapter:
                return
            damaged = damaged_adapter(
                adapter.path,
                adapter.alias,
                adapter.version,
                problem.removeprefix(f"{adapter.full_name}: "),
                adapter.language,
                imported=adapter.imported,
            )
            self._served.replace(damaged)
            log.error(
                "adapter %s is damaged and not served; restore its files or promote another version: %s",
                damaged.full_name,
                damaged.problem,
            )

    def _kept(self) -> dict[Path, Adapter]:
        """Return this base's adapters by folder, without those that were loaded over HTTP."""
        return {adapter.path: adapter for adapter in self._served.adapters() if not self.is_loaded(adapter)}

    def is_loaded(self, adapter: Adapter) -> bool:
        """True if the adapter was loaded over HTTP."""
        return self.loaded.get(adapter.full_name.lower()) == adapter

    async def reroute(self) -> None:
        """Make the router again for the current languages, and log the problems."""
        for problem in await self._reroute():
            log.warning("%s", problem)

    def _mark(self) -> str:
        """Return a text that changes with the registry, its adapters in other folders, and the ledger."""
        ledger = self.options.home / "ledger" / LEDGER_FILE
        size = ledger.stat().st_size if ledger.is_file() else 0
        outside = [stamp(folder) for folder in sorted(self._pointed)]
        return "\n".join([str(size), *outside, fingerprint(self.options.home / "registry")])

    def _leaves(self, adapter: Adapter, found: RegistryListing) -> bool:
        """True if the version is retired or no longer in the registry."""
        if self.is_loaded(adapter):
            return False
        if found.pointers.is_retired(adapter.alias, adapter.version):
            return True
        kept = adapter.path.is_relative_to(self.options.home / "registry")
        return kept and adapter.path not in found.served_folders

    async def _activate(self, found: RegistryListing, problems: set[str]) -> bool:
        """Load newly promoted versions and move their aliases. Returns False if this must be tried again."""
        held = [one for one in self._served.adapters() if not self.is_loaded(one)]
        staying = [one for one in held if not self._leaves(one, found)]
        wanted, notes = active_versions(staying, found.pointers)
        problems |= set(notes)
        done = True
        for alias, version in wanted.items():
            before = self._served.active(alias)
            after = self._served.resolve(f"{alias}@{version}")
            if after == before:
                continue
            if after.problem is not None and before.problem is None:
                problems.add(
                    f"adapter {after.full_name} was promoted but is damaged, so {before.full_name} stays "
                    "active; "
                    "restore its files, or promote another version"
                )
                continue
            try:
                await self._runtime.residency.ensure(after)
            except AdapterUnavailableError:
                self._served.activate(alias, version)  # of two that are damaged, the promoted one
                continue
            except AdapterRefusedError as error:
                problems.add(
                    f"adapter {after.full_name} was promoted, but the engine cannot load it, so "
                    f"{before.full_name} stays active: {error}"
                )
                continue
            except (AdapterNotLoadedError, EngineError) as error:
                problems.add(
                    f"adapter {after.full_name} was promoted, but is not loaded yet; the server tries again: "
                    f"{error}"
                )
                done = False
                continue
            self._served.activate(alias, version)
            log.info(
                "alias %s is now answered by adapter %s (before: %s)",
                after.alias,
                after.full_name,
                before.full_name,
            )
            self.unload(before)
        return done

    def _remove(self, found: RegistryListing, problems: set[str]) -> None:
        """Stop serving versions that are retired or gone from the registry, each alias's active one last."""
        leaving = [one for one in self._served.adapters() if self._leaves(one, found)]
        for adapter in sorted(leaving, key=lambda one: self._served.active(one.alias) == one):
            try:
                self._served.remove(adapter.full_name)
            except AdapterRejectedError as error:
                problems.add(str(error))
                continue
            log.info("adapter %s is no longer served: it was retired or removed", adapter.full_name)
            self.unload(adapter)

    def _sweep(self) -> None:
        """Unload adapters that are not served any more, but that a late request has loaded again."""
        named = {adapter.digest for adapter in self._served.adapters() if adapter.digest}
        unnamed = frozenset(self._runtime.engine.state().resident.keys() - named)
        for digest in unnamed & self._unnamed - {*self._unloading.values()}:
            self._drop(digest)
        self._unnamed = unnamed
        self._departures.look()

    def unload(self, adapter: Adapter) -> None:
        """Unload `adapter` from the engine when unused, unless an active version has the same weights."""
        actives = (self._served.active(alias) for alias in self._served.aliases())
        if adapter.digest and adapter.digest not in {active.digest for active in actives}:
            self._drop(adapter.digest)
        self._departures.look()

    def _drop(self, digest: str) -> None:
        async def unload() -> None:
            with suppress(EngineError):
                await self._runtime.engine.unload(digest)

        task = asyncio.create_task(unload())
        self._unloading[task] = digest
        task.add_done_callback(self._unloading.pop)

    async def _reroute(self) -> set[str]:
        """Make the router again. Returns the problems to log: invalid routing settings, and languages with
        several adapters of which the settings choose none.
        """
        problems = {*describe_contested(self._served), *self.options.contested()}
        try:
            self._runtime.router = await asyncio.to_thread(self.options.router)
        except SettingsError as error:
            problems.add(
                f"the server keeps its previous routing, because the new routing is invalid: {error}"
            )
        return problems

    def log_new(self, problems: set[str]) -> None:
        """Log the problems that were not there at the last call, so that a lasting problem is logged once."""
        for problem in sorted(problems - self._said):
            log.warning("%s", problem)
        self._said = frozenset(problems)
