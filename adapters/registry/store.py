"""The registry on disk: immutable versions under registry/ALIAS/VERSION, and which of them is active.

Every change is made under a lock that processes share, is recorded first, and becomes visible by one rename:
a process that is killed at any moment leaves the old state or the new one. Readers take no lock.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from adapters import names
from adapters.errors import StoreError
from adapters.files.atomic import clear_leftovers, remove_folder, staged_folder
from adapters.home import mark_home
from adapters.ledger import Ledger, Record
from adapters.lora.manifest import Adapter
from adapters.registry.division import Division, canary, settle, shadow
from adapters.registry.intake import Base, Intake, check
from adapters.registry.ledger_records import addition, move, removal, told_division
from adapters.registry.listing import Held, Shelf, alias_folders, fingerprint

__all__ = ["Added", "Base", "Division", "Held", "Moved", "Shelf", "Store", "StoreError"]

PATIENCE = 60.0
"""Seconds to wait for another process that is changing the registry."""


@dataclass(frozen=True, slots=True)
class Added:
    """What `add` came to."""

    adapter: Adapter
    new: bool
    """False where the same version was there already."""
    active: bool


@dataclass(frozen=True, slots=True)
class Moved:
    """What an alias stood for, and what it stands for now."""

    before: Held | None
    after: Held


class Store:
    """The registry of one `home`. Safe under several processes and threads.

    Each change is in `ledger`, where there is one, before it becomes visible; what that raises stops it.
    """

    def __init__(self, home: Path, ledger: Ledger | None = None) -> None:
        self.folder = home / "registry"
        self._ledger = ledger

    def shelf(self) -> Shelf:
        """What it holds at this moment. Raises as `Shelf.read` does."""
        return Shelf.read(self.folder)

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
    ) -> Added:
        """Make the PEFT LoRA in `folder` a version, by names that are passed, recorded or told by its folder.

        Without any version it takes the next free one. The first version of an alias becomes active; a later
        one waits for `promote`. The same contents under the same name change nothing, but are recorded where
        the ledger does not know them. `notes` are further fields of oneseek.json; `sources` (by
        digest) and `details` go to the ledger alone. Raises `AdapterError` as `intake.check` does,
        `StoreError` where the version holds something else, `LedgerError`, `ValueError` where a name that is
        passed is none; then nothing has changed.
        """
        intake = check(folder, base, alias=alias, version=version, language=language, notes=notes)
        with self._writing() as shelf:
            versions = shelf.versions(intake.source.alias)
            intake = intake.named(intake.given_version or _version_for(intake, versions))
            adapter = intake.source
            for held in versions:
                if held.is_named(adapter.alias, adapter.version):
                    present = _same(held, intake, versions)
                    if self._ledger is not None and not self._ledger.knows(present.digest):
                        self._record(addition(intake, action, sources, details))
                    return Added(present, new=False, active=shelf.is_active(held))
            self._record(addition(intake, action, sources, details))
            before = self._pinned(shelf, adapter)
            with staged_folder(self._place(adapter)) as temporary:
                intake.write(temporary)
            return Added(Held.of(self._place(adapter)).read(), new=True, active=before is None)

    def promote(self, name: str) -> Moved:
        """Make `alias@version` what its alias stands for, also where it was retired.

        All requests for the alias go to it then, however they were divided.
        Raises `UnknownAdapterError`, `StoreError` without a version, `AdapterError` where its files changed.
        """
        _with_version(name, "promote")
        with self._writing() as shelf:
            after = shelf.find(name)
            before, adapter, actives = shelf.active(after.alias), after.read(), shelf.actives
            if before != after or actives.active(after.alias) is None:
                if before is not None:
                    actives = actives.promoted(before.alias, before.version)
                ended = told_division(shelf.actives.line(after.alias))
                self._record(move("promote", before, after, adapter, ended))
                actives.promoted(after.alias, after.version).write(self.folder)
            return Moved(before, after)

    def rollback(self, alias: str) -> Moved:
        """Make active what was so before the present version; again and again it walks back.

        All requests for the alias go to it then, however they were divided.
        Raises `UnknownAdapterError`, `StoreError` where there is nothing before, `AdapterError` where the
        files of that version changed.
        """
        if "@" in alias:
            raise StoreError(
                f"{alias} names a version, and rollback takes an alias. To choose one, promote it."
            )
        with self._writing() as shelf:
            before = shelf.find(alias)
            served = {held.version for held in shelf.served(before.alias)}
            actives = shelf.actives.rolled_back(before.alias, served)
            if actives is None:
                raise StoreError(
                    f"No version of {before.alias} was active before {before.version}. Promote another one."
                )
            after = shelf.find(f"{before.alias}@{actives.active(before.alias)}")
            ended = told_division(shelf.actives.line(after.alias))
            self._record(move("rollback", before, after, after.read(), ended))
            actives.write(self.folder)
            return Moved(before, after)

    def retire(self, name: str, *, delete: bool = False) -> Held:
        """Serve `alias@version` no longer; its files stay, unless `delete`. Retiring again changes nothing.

        Raises `UnknownAdapterError`, and `StoreError` for the active one of several that are served, and for
        one that has or shadows a share of its alias's requests.
        """
        _with_version(name, "retire")
        with self._writing() as shelf:
            held = shelf.find(name)
            others = [item.version for item in shelf.served(held.alias) if item != held]
            if others and shelf.is_active(held):
                raise StoreError(
                    f"{held.full_name} is active: promote another version first ({', '.join(others)})."
                )
            if held.version.lower() in shelf.actives.line(held.alias).divided:
                raise StoreError(
                    f"{held.full_name} has a share of the requests for its alias: settle {held.alias} first."
                )
            if not shelf.is_retired(held):
                self._record(removal("retire", held))
                shelf.actives.without(held.alias, held.version, keep=True).write(self.folder)
            if delete:
                self._record(removal("delete", held))
                remove_folder(held.folder)
                shelf.actives.without(held.alias, held.version, keep=False).write(self.folder)
            return held

    def canary(self, alias: str, shares: Mapping[str, float]) -> Division:
        """Divide the requests for `alias` between versions (version → percent), sticky by conversation.

        The active version is among them, and they add up to 100. A shadow that gets a share ends as a shadow.
        Raises `UnknownAdapterError`, `StoreError` for a retired version or shares that do not fit, and
        `AdapterError` where a version's files changed.
        """
        with self._writing() as shelf:
            return self._divide(canary(shelf, alias, shares))

    def shadow(self, name: str, share: float) -> Division:
        """Have `alias@version` also answer `share` percent of the requests for its alias, unseen.

        Raises `UnknownAdapterError`, `StoreError` for a retired version, one that answers already, or a share
        that does not fit, and `AdapterError` where its files changed.
        """
        _with_version(name, "shadow")
        with self._writing() as shelf:
            return self._divide(shadow(shelf, name, share))

    def settle(
        self,
        alias: str,
        reason: str = "",
        *,
        since: str | None = None,
        metrics: Mapping[str, float] | None = None,
    ) -> Division:
        """Have every request for `alias` go to its active version again, and end its shadow.

        `since` ends the split or shadow that was set then, and nothing where that has ended. `reason` and
        `metrics` go to the ledger. Where nothing is divided, nothing changes. Raises `UnknownAdapterError`.
        """
        with self._writing() as shelf:
            return self._divide(settle(shelf, alias, reason, since, metrics))

    def _divide(self, division: Division) -> Division:
        if division.record is not None:
            self._record(division.record)
            division.actives.write(self.folder)
        return division

    def _record(self, record: Record) -> None:
        if self._ledger is not None:
            self._ledger.append(record)

    @contextmanager
    def _writing(self) -> Generator[Shelf]:
        """Hold the registry's lock, with what killed writers left cleared away."""
        mark_home(self.folder.parent)
        self.folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(self.folder / ".lock", timeout=PATIENCE)
        try:
            lock.acquire()
        except Timeout:
            raise StoreError(
                f"Another process has been changing {self.folder} for {PATIENCE:g} seconds. Try again once "
                f"it is done; it holds {lock.lock_file}."
            ) from None
        try:
            for place in (self.folder, *alias_folders(self.folder)):
                clear_leftovers(place)
            yield self.shelf()
        finally:
            lock.release()

    def _pinned(self, shelf: Shelf, adapter: Adapter) -> Held | None:
        """What the alias of a coming version stands for, recorded so that the new one does not replace it."""
        before, actives = shelf.active(adapter.alias), shelf.actives
        if actives.is_retired(adapter.alias, adapter.version):
            actives = actives.without(adapter.alias, adapter.version, keep=False)
        if before is not None and actives.active(before.alias) != before.version.lower():
            actives = actives.promoted(before.alias, before.version)
        if actives is not shelf.actives:
            actives.write(self.folder)
        return before

    def _place(self, adapter: Adapter) -> Path:
        """The folder of a version; beside its alias's other versions, however their alias is written."""
        same = (path for path in alias_folders(self.folder) if path.name.lower() == adapter.alias.lower())
        return next(same, self.folder / adapter.alias) / adapter.version


def _with_version(name: str, verb: str) -> None:
    if "@" not in name:
        raise StoreError(f"{name} names no version: say {verb} {name}@VERSION.")


def _version_for(intake: Intake, versions: tuple[Held, ...]) -> str:
    """The version that holds these very contents already, else the next free one."""
    known = (held.version for held in versions if held.recorded_digest == intake.source.digest)
    return next(known, None) or names.next_version(held.version for held in versions)


def _same(held: Held, intake: Intake, versions: tuple[Held, ...]) -> Adapter:
    """The version that is there, where it is the one to be added; `StoreError` otherwise."""
    present, wanted = held.read(), intake.source
    free = names.next_version(held.version for held in versions)
    if present.digest != wanted.digest:
        raise StoreError(
            f"{held.full_name} exists and holds {present.digest}; {wanted.path} holds {wanted.digest}. "
            f"A version never changes: add it as --version {free}."
        )
    if wanted.language not in (None, present.language):
        raise StoreError(
            f"{held.full_name} exists with the language {present.language}, not {wanted.language}. "
            f"A version never changes: add it as --version {free}."
        )
    return present
