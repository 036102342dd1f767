"""The registry on disk: immutable versions under registry/ALIAS/VERSION, and which version of an alias is
active.

Every change takes a lock between processes, is recorded in the ledger first, and becomes visible by renaming
one file. If a process is killed, either the old or the new state is left. Readers take no lock.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adapters.errors import LedgerError, RegistryError
from adapters.files.atomic import clear_leftovers, flush_tree, remove_folder, replace_file, staged_folder
from adapters.home import mark_home
from adapters.ledger import Ledger, Record
from adapters.ledger.origin import RESTORE
from adapters.lora.manifest import Adapter
from adapters.registry.division import ShareChange, plan_canary, plan_settle, plan_shadow
from adapters.registry.intake import Base, check_adapter, same_version, version_for
from adapters.registry.ledger_records import addition, division_to_json, move, removal, standing_of
from adapters.registry.listing import RegistryListing, VersionFolder, alias_folders, fingerprint
from adapters.registry.pointers import ACTIVE_FILE, AliasPointers, PointersError
from adapters.registry.recovery import check_pointers, recover

__all__ = [
    "AddResult",
    "AliasMove",
    "Base",
    "Registry",
    "RegistryError",
    "RegistryListing",
    "ShareChange",
    "VersionFolder",
]

PATIENCE = 60.0
"""Seconds to wait for another process that is changing the registry."""
LOCK_NAME = ".lock"
"""Name of the lock file in the registry's folder."""


@dataclass(frozen=True, slots=True)
class AddResult:
    """The result of adding a version to the registry."""

    adapter: Adapter
    new: bool
    """False if the version already existed with the same contents."""
    active: bool
    """True if the new version is now active for its alias."""
    stands: str
    """Full name of the version that is now active for its alias."""
    base_recorded: bool = True
    """False if the adapter records no base, so that only its shapes show that it fits this base."""


@dataclass(frozen=True, slots=True)
class AliasMove:
    """The version of an alias that was active before a change, and the one that is active now."""

    before: VersionFolder | None
    after: VersionFolder


class Registry:
    """The registry in the folder `home`. Safe to use from several processes and threads.

    Each change is written to `ledger`, if there is one, before it becomes visible. If that fails, the change
    is not made. `outside` is a function that returns the versions served from folders outside the registry,
    since such a version can be an alias's active version. `add` raises the errors of `outside`.
    """

    def __init__(
        self,
        home: Path,
        ledger: Ledger | None = None,
        outside: Callable[[], Sequence[VersionFolder]] = tuple,
    ) -> None:
        self.folder = home / "registry"
        self._ledger = ledger
        self._outside = outside

    def listing(self) -> RegistryListing:
        """Read the registry's versions, and those in folders outside it if these can be read. Raises the
        errors of `RegistryListing.read`.
        """
        try:
            outside = self._outside()
        except (LookupError, OSError, ValueError):
            outside = ()  # nothing is served here then; what pointers name is known without it
        return RegistryListing.read(self.folder, outside)

    def fingerprint(self) -> str:
        """Return text that changes with every change to the registry."""
        return fingerprint(self.folder)

    def add(
        self,
        folder: Path,
        *,
        base: Base,
        alias: str | None = None,
        version: str | None = None,
        language: str | None = None,
        notes: Mapping[str, Any] | None = None,
        action: str = "add",
        sources: Mapping[str, str] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> AddResult:
        """Add the PEFT LoRA in `folder` to the registry as a version. Alias and version are those in the
        arguments, else those in its oneseek.json or its folder's name.

        Without a version, it gets the next free one. The first version of an alias becomes active. If the
        alias already has an active version, in the registry or a folder, the new version waits for `promote`.
        Adding the same contents under the same name changes nothing, but is recorded if the ledger does not
        know them. If that version was retired and the alias has no active version, it becomes active again.

        `notes` are further fields for oneseek.json. `sources` (inputs by role) and `details` only go to the
        ledger. Raises `AdapterError` as `intake.check_adapter` does, `RegistryError` if the version exists
        with other contents, `LedgerError`, and `ValueError` if a given name is invalid. After an error
        nothing has changed.
        """
        intake = check_adapter(folder, base, alias=alias, version=version, language=language, notes=notes)
        self._outside()  # an alias that is served must not be taken for a new one
        with self._writing() as listing:
            versions = listing.versions(intake.source.alias)
            intake = intake.with_version(intake.given_version or version_for(intake, versions))
            adapter = intake.source
            before = listing.active_on(adapter.alias, base.digest)
            for entry in versions:
                if entry.is_named(adapter.alias, adapter.version):
                    present = same_version(entry, intake, versions)
                    if entry.outside is not None:
                        break  # these contents are served from a folder, and the registry takes them in
                    if self._ledger is not None and not self._ledger.knows(present.digest):
                        self._record(addition(intake, action, sources, details))
                    if before is None and listing.is_retired(entry):
                        self._serve_again(listing, entry, present)
                    stands = before or entry
                    return AddResult(present, new=False, active=entry == stands, stands=stands.full_name)
            standing = standing_of(before, adapter)
            record = addition(intake, action, sources, {**(details or {}), **standing})
            with staged_folder(self._place(adapter)) as temporary:
                # What can fail comes first: a refusal leaves neither a version nor an entry.
                intake.write(temporary)
                flush_tree(temporary)
                self._record(record)
                if before is not None:
                    self._pin(listing, before, adapter)
            added = VersionFolder.of(self._place(adapter))
            if before is None:
                self._note_first(listing, added)
            stands = before or added
            return AddResult(
                added.read(),
                new=True,
                active=stands.is_named(adapter.alias, adapter.version),
                stands=stands.full_name,
                base_recorded=intake.base_recorded,
            )

    def promote(self, name: str) -> AliasMove:
        """Make `alias@version` the active version of its alias, even if it was retired.

        All requests for the alias then go to this version: any canary or shadow ends. Raises
        `UnknownAdapterError`, `RegistryError` if `name` has no version, and `AdapterError` if the version's
        files have changed.
        """
        _with_version(name, "promote")
        with self._writing() as listing:
            after = listing.find(name)
            before, adapter, pointers = listing.active(after.alias), after.read(), listing.pointers
            if before != after or pointers.active(after.alias) is None:
                if before is not None:
                    pointers = pointers.promote(before.alias, before.version, before.outside)
                ended = division_to_json(listing.pointers.state(after.alias))
                self._record(move("promote", before, after, adapter, ended))
                pointers.promote(after.alias, after.version, after.outside).write(self.folder)
            return AliasMove(before, after)

    def rollback(self, alias: str) -> AliasMove:
        """Make the previously active version of `alias` active again. Repeat the call to go further back.

        All requests for the alias then go to this version: any canary or shadow ends. Raises
        `UnknownAdapterError`, `RegistryError` if there is no previous version, and `AdapterError` if its
        files have changed.
        """
        if "@" in alias:
            raise RegistryError(
                f"{alias} names a version. Use rollback with an alias, or use promote with that version."
            )
        with self._writing() as listing:
            before = listing.find(alias)
            served = {entry.version for entry in listing.served_versions(before.alias)}
            pointers = listing.pointers.roll_back(before.alias, served)
            if pointers is None:
                raise RegistryError(
                    f"No version of {before.alias} was active before {before.version}. Promote the version "
                    "that you want."
                )
            after = listing.find(f"{before.alias}@{pointers.active(before.alias)}")
            ended = division_to_json(listing.pointers.state(after.alias))
            self._record(move("rollback", before, after, after.read(), ended))
            pointers.write(self.folder)
            return AliasMove(before, after)

    def retire(self, name: str, *, delete: bool = False) -> VersionFolder:
        """Stop serving `alias@version`. Its files stay unless `delete` is true. Does nothing if the version
        is retired already.

        Raises `UnknownAdapterError`. Raises `RegistryError` if the version is active and the alias has
        others, if it is a canary or shadow, or if `delete` would remove files outside the registry.
        """
        _with_version(name, "retire")
        with self._writing() as listing:
            entry = listing.find(name)
            if delete and entry.outside is not None:
                raise RegistryError(
                    f"{entry.full_name} is in {entry.where}, outside the registry, where OneSeek deletes "
                    "nothing. Retire the version without deleting, or remove the folder yourself."
                )
            others = [item.version for item in listing.served_versions(entry.alias) if item != entry]
            if others and listing.is_active(entry):
                raise RegistryError(
                    f"{entry.full_name} is active: promote another version first ({', '.join(others)})."
                )
            if entry.version.lower() in listing.pointers.state(entry.alias).divided_versions:
                raise RegistryError(
                    f"{entry.full_name} still answers a part of the requests for its alias: "
                    f"end that first (oneseek adapters settle {entry.alias})."
                )
            if not listing.is_retired(entry):
                self._record(removal("retire", entry))
                pointers = listing.pointers.drop(entry.alias, entry.version, keep=True, folder=entry.outside)
                pointers.write(self.folder)
            if delete:
                self._record(removal("delete", entry))
                if entry.folder.is_dir():
                    remove_folder(entry.folder)
                listing.pointers.drop(entry.alias, entry.version, keep=False).write(self.folder)
            return entry

    def repair(self) -> AliasPointers:
        """Rebuild a damaged or lost `active.json` from the ledger, after verifying the ledger.

        Keeps the damaged file under another name. If `active.json` can be read, nothing changes. Raises
        `LedgerError` if the ledger is missing or does not verify.
        """
        if self._ledger is None:
            raise RegistryError(
                "There is no ledger to rebuild the active versions from. Promote each of them by hand."
            )
        with self._locked():
            path = self.folder / ACTIVE_FILE
            try:
                known = AliasPointers.read(self.folder) if os.path.lexists(path) else None
            except PointersError:
                known = None
            pointers = recover(self._ledger, RegistryListing.without_pointers(self.folder))
            if known is not None:
                return known
            if os.path.lexists(path):
                replace_file(path, _free_name(path))
            pointers.write(self.folder)
            return pointers

    def canary(self, alias: str, shares: Mapping[str, float]) -> ShareChange:
        """Divide the requests for `alias` between versions. `shares` maps each version to its percentage. A
        conversation stays with one version.

        `shares` must include the active version and add up to 100. If the present shadow is among these
        versions, it is no longer a shadow. Raises `UnknownAdapterError`, `RegistryError` for a retired
        version or wrong percentages, and `AdapterError` if a version's files have changed.
        """
        with self._writing() as listing:
            return self._divide(plan_canary(listing, alias, shares))

    def shadow(self, name: str, share: float) -> ShareChange:
        """Make `alias@version` a shadow: it also answers `share` percent of the requests for its alias.
        Clients never see its answers.

        Raises `UnknownAdapterError`, `RegistryError` for a retired version, a version that already answers
        requests, or a wrong percentage, and `AdapterError` if its files have changed.
        """
        _with_version(name, "shadow")
        with self._writing() as listing:
            return self._divide(plan_shadow(listing, name, share))

    def settle(
        self,
        alias: str,
        reason: str = "",
        *,
        since: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> ShareChange:
        """End the canary and the shadow of `alias`: all its requests go to the active version again.

        With `since`, ends only a canary or shadow that was set at that time. `reason` and `metrics` go to the
        ledger. Does nothing if there is neither a canary nor a shadow. Raises `UnknownAdapterError`.
        """
        with self._writing() as listing:
            return self._divide(plan_settle(listing, alias, reason, since, metrics))

    def _divide(self, division: ShareChange) -> ShareChange:
        if division.record is not None:
            self._record(division.record)
            division.pointers.write(self.folder)
        return division

    def _record(self, record: Record) -> None:
        if self._ledger is None:
            return
        if not self._ledger.begun and os.path.lexists(self.folder / ACTIVE_FILE):
            reason = "the ledger is missing, but changes to the registry were recorded in it"
            raise LedgerError(self._ledger.folder, reason, RESTORE)
        self._ledger.append(record)

    @contextmanager
    def unchanging(self) -> Generator[None]:
        """Keep all processes from changing the registry. Raises `RegistryError` and `OSError`."""
        with self._locked():
            yield

    @contextmanager
    def _writing(self) -> Generator[RegistryListing]:
        """Hold the registry's lock for a change, after checking that `active.json` is not lost."""
        with self._locked():
            listing = self.listing()
            if self._ledger is not None and not os.path.lexists(self.folder / ACTIVE_FILE):
                check_pointers(listing, self.folder, self._ledger.folder)
            yield listing

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the registry's lock, and remove unfinished files of killed processes."""
        mark_home(self.folder.parent)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / LOCK_NAME, timeout=PATIENCE)
        try:
            lock.acquire()
        except Timeout:
            raise RegistryError(
                f"Another process has been changing {self.folder} for {PATIENCE:g} seconds. Try again once "
                f"that process is done; it holds the lock file {lock.lock_file}."
            ) from None
        try:
            for place in (self.folder, *alias_folders(self.folder)):
                clear_leftovers(place)
            yield
        finally:
            lock.release()

    def _pin(self, listing: RegistryListing, before: VersionFolder, adapter: Adapter) -> None:
        """Record the active version of an alias, so that a version added next does not replace it."""
        pointers = listing.pointers
        if pointers.is_retired(adapter.alias, adapter.version):
            pointers = pointers.drop(adapter.alias, adapter.version, keep=False)
        folder = None if before.is_named(adapter.alias, adapter.version) else before.outside
        version = before.version.lower()
        noted = pointers.state(before.alias).folders.get(version)
        if (pointers.active(before.alias), noted) != (version, folder):
            pointers = pointers.promote(before.alias, version, folder)
        if pointers != listing.pointers:
            pointers.write(self.folder)

    def _note_first(self, listing: RegistryListing, entry: VersionFolder) -> None:
        """Record a new alias's first version as active, so that the loss of its folder is reported."""
        with suppress(OSError):
            listing.pointers.promote(entry.alias, entry.version).write(self.folder)

    def _serve_again(self, listing: RegistryListing, entry: VersionFolder, adapter: Adapter) -> None:
        """Make a retired version active again. Used if its alias has no active version."""
        self._record(move("promote", None, entry, adapter, None))
        listing.pointers.promote(entry.alias, entry.version, entry.outside).write(self.folder)

    def _place(self, adapter: Adapter) -> Path:
        """Return the folder for a new version: in its alias's folder, whatever the case of its letters."""
        same = (path for path in alias_folders(self.folder) if path.name.lower() == adapter.alias.lower())
        return next(same, self.folder / adapter.alias) / adapter.version


def _free_name(path: Path) -> Path:
    """Return a free file name under which to keep a damaged file."""
    names_ = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    return next(name for name in names_ if not os.path.lexists(name))


def _with_version(name: str, verb: str) -> None:
    if "@" not in name:
        raise RegistryError(f"{name} does not name a version: use {verb} {name}@VERSION.")
