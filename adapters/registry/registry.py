"""The registry on disk: immutable versions under registry/ALIAS/VERSION, and which of them is active.

Every change is made under a lock that processes share, is recorded first, and becomes visible by one rename:
a process that is killed at any moment leaves the old state or the new one. Readers take no lock.
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


@dataclass(frozen=True, slots=True)
class AddResult:
    """What `add` came to."""

    adapter: Adapter
    new: bool
    """False where the same version was there already."""
    active: bool
    """Whether its alias stands for it now."""
    stands: str
    """Full name of what its alias stands for now."""
    base_recorded: bool = True
    """False if nothing but the adapter's shapes told that it is for this base."""


@dataclass(frozen=True, slots=True)
class AliasMove:
    """What an alias stood for, and what it stands for now."""

    before: VersionFolder | None
    after: VersionFolder


class Registry:
    """The registry of one `home`. Safe under several processes and threads.

    Each change is in `ledger`, where there is one, before it becomes visible; what that raises stops it.
    `outside` answers which versions are served from elsewhere, so that an alias can stand for one of them;
    what it raises, `add` raises.
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
        """What it holds at this moment, and what is served from elsewhere as far as that can be read.

        Raises as `RegistryListing.read` does.
        """
        try:
            outside = self._outside()
        except (LookupError, OSError, ValueError):
            outside = ()  # nothing is served here then; what pointers name is known without it
        return RegistryListing.read(self.folder, outside)

    def fingerprint(self) -> str:
        """Text that changes when a version comes, goes, or any other change is made."""
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
        """Make the PEFT LoRA in `folder` a version, by names that are passed, recorded or told by its folder.

        Without any version it takes the next free one. The first version of an alias becomes active; one of
        an alias that is served, from wherever, waits for `promote`. The same contents under the same name
        change nothing, but are recorded where the ledger does not know them. `notes` are further fields of
        oneseek.json; `sources` (by digest) and `details` go to the ledger alone. Raises `AdapterError` as
        `intake.check_adapter` does, `RegistryError` where the version holds something else, `LedgerError`,
        `ValueError` where a name that is passed is none; then nothing has changed.
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
                    stands = before or entry
                    return AddResult(present, new=False, active=entry == before, stands=stands.full_name)
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
        """Make `alias@version` what its alias stands for, also where it was retired.

        All requests for the alias go to it then, however they were divided.
        Raises `UnknownAdapterError`, `RegistryError` without a version, `AdapterError` where its files
        changed.
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
        """Make active what was so before the present version; again and again it walks back.

        All requests for the alias go to it then, however they were divided.
        Raises `UnknownAdapterError`, `RegistryError` where there is nothing before, `AdapterError` where the
        files of that version changed.
        """
        if "@" in alias:
            raise RegistryError(
                f"{alias} names a version, and rollback takes an alias. To choose one, promote it."
            )
        with self._writing() as listing:
            before = listing.find(alias)
            served = {entry.version for entry in listing.served_versions(before.alias)}
            pointers = listing.pointers.roll_back(before.alias, served)
            if pointers is None:
                raise RegistryError(
                    f"No version of {before.alias} was active before {before.version}. Promote another one."
                )
            after = listing.find(f"{before.alias}@{pointers.active(before.alias)}")
            ended = division_to_json(listing.pointers.state(after.alias))
            self._record(move("rollback", before, after, after.read(), ended))
            pointers.write(self.folder)
            return AliasMove(before, after)

    def retire(self, name: str, *, delete: bool = False) -> VersionFolder:
        """Serve `alias@version` no longer; its files stay, unless `delete`. Retiring again changes nothing.

        Raises `UnknownAdapterError`, and `RegistryError` for the active one of several that are served, for
        one that has or shadows a share of its alias's requests, and if files outside the registry are to be
        deleted.
        """
        _with_version(name, "retire")
        with self._writing() as listing:
            entry = listing.find(name)
            if delete and entry.outside is not None:
                raise RegistryError(
                    f"{entry.full_name} lies in {entry.where}, where nothing is deleted. Retire it without "
                    "deleting, or remove the folder yourself."
                )
            others = [item.version for item in listing.served_versions(entry.alias) if item != entry]
            if others and listing.is_active(entry):
                raise RegistryError(
                    f"{entry.full_name} is active: promote another version first ({', '.join(others)})."
                )
            if entry.version.lower() in listing.pointers.state(entry.alias).divided_versions:
                raise RegistryError(
                    f"{entry.full_name} has a share of the requests for its alias: "
                    f"settle {entry.alias} first."
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
        """Write a damaged or lost `active.json` anew from the ledger, which is verified first.

        The damaged file is kept beside it; a file that can be read stays as it is.
        Raises `LedgerError` if the ledger is absent or does not verify.
        """
        if self._ledger is None:
            raise RegistryError("There is no ledger to read the active versions from.")
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
        """Divide the requests for `alias` between versions (version → percent), sticky by conversation.

        The active version is among them, and they add up to 100. A shadow that gets a share ends as a shadow.
        Raises `UnknownAdapterError`, `RegistryError` for a retired version or shares that do not fit, and
        `AdapterError` where a version's files changed.
        """
        with self._writing() as listing:
            return self._divide(plan_canary(listing, alias, shares))

    def shadow(self, name: str, share: float) -> ShareChange:
        """Have `alias@version` also answer `share` percent of the requests for its alias, unseen.

        Raises `UnknownAdapterError`, `RegistryError` for a retired version, one that answers already, or a
        share that does not fit, and `AdapterError` where its files changed.
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
        """Have every request for `alias` go to its active version again, and end its shadow.

        `since` ends the split or shadow that was set then, and nothing where that has ended. `reason` and
        `metrics` go to the ledger. Where nothing is divided, nothing changes. Raises `UnknownAdapterError`.
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
            reason = "was removed: changes to the registry were recorded in it"
            raise LedgerError(self._ledger.folder, reason, RESTORE)
        self._ledger.append(record)

    @contextmanager
    def _writing(self) -> Generator[RegistryListing]:
        """Hold the registry's lock over a change to what it holds, of which all is known."""
        with self._locked():
            listing = self.listing()
            if self._ledger is not None and not os.path.lexists(self.folder / ACTIVE_FILE):
                check_pointers(listing, self.folder, self._ledger.folder)
            yield listing

    @contextmanager
    def _locked(self) -> Generator[None]:
        """Hold the registry's lock, with what killed writers left cleared away."""
        mark_home(self.folder.parent)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=PATIENCE)
        try:
            lock.acquire()
        except Timeout:
            raise RegistryError(
                f"Another process has been changing {self.folder} for {PATIENCE:g} seconds. Try again once "
                f"it is done; it holds {lock.lock_file}."
            ) from None
        try:
            for place in (self.folder, *alias_folders(self.folder)):
                clear_leftovers(place)
            yield
        finally:
            lock.release()

    def _pin(self, listing: RegistryListing, before: VersionFolder, adapter: Adapter) -> None:
        """Record what the alias of a coming version stands for, so that the new one does not replace it."""
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
        """Record what a new alias stands for, so that its loss is noticed."""
        with suppress(OSError):
            listing.pointers.promote(entry.alias, entry.version).write(self.folder)

    def _place(self, adapter: Adapter) -> Path:
        """The folder of a version; beside its alias's other versions, however their alias is written."""
        same = (path for path in alias_folders(self.folder) if path.name.lower() == adapter.alias.lower())
        return next(same, self.folder / adapter.alias) / adapter.version


def _free_name(path: Path) -> Path:
    """Where a damaged file is kept."""
    names_ = (path.with_name(f"{path.name}.damaged-{number}") for number in itertools.count(1))
    return next(name for name in names_ if not os.path.lexists(name))


def _with_version(name: str, verb: str) -> None:
    if "@" not in name:
        raise RegistryError(f"{name} names no version: say {verb} {name}@VERSION.")
