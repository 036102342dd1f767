"""Rebuild the active versions from the ledger if `active.json` is lost or damaged."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import LedgerError
from adapters.ledger import Entry, Ledger, Record
from adapters.registry.folders import FolderRecord
from adapters.registry.listing import RegistryListing
from adapters.registry.pointers import ACTIVE_FILE, REMEDY, AliasPointers, PointersError
from adapters.registry.traffic import Shadow, TrafficSplit

_DIVISIONS = ("canary", "shadow", "settle")


@dataclass(frozen=True, slots=True)
class AcceptedContents:
    """The ledger's record of a version. A field is None if the ledger does not record that field."""

    digest: str | None = None
    language: str | None = None
    imported: bool = False
    """True if the version was converted from a file of an earlier OneSeek installation."""


def replay(entries: Iterable[Entry]) -> AliasPointers:
    """Return the active versions, as `active.json` holds them, after the changes in `entries`, oldest first.

    The first version of an alias is active until another is promoted, unless its entry names another version
    that was already served. Entries that are not about adapter versions change nothing.
    """
    pointers = AliasPointers()
    for entry in entries:
        pointers = _after(pointers, entry)
    return pointers


def check_pointers(listing: RegistryListing, registry: Path, ledger: Path) -> None:
    """Raise `PointersError` if `active.json` is missing but the ledger records active versions.

    Without this error, the highest version of each alias would be served, even if nobody promoted it.
    """
    path = registry / ACTIVE_FILE
    if os.path.lexists(path) or not ledger.is_dir():
        return
    told = told_pointers(ledger)
    if any(state.folders for state in told.states.values()):
        raise PointersError(
            path, "the file of active versions is missing, but the ledger records changes to them", REMEDY
        )
    for entry in listing.entries:
        active, retired = told.active(entry.alias), told.is_retired(entry.alias, entry.version)
        if retired or (active is not None and not listing.is_named_active(entry.alias, active)):
            raise PointersError(
                path, "the file of active versions is missing, but the ledger records changes to them", REMEDY
            )


def told_pointers(ledger: Path) -> AliasPointers:
    """Return the active versions that the ledger records, without verifying the ledger. Empty if it cannot be
    read.
    """
    try:
        return replay(Ledger.open(ledger).entries())
    except LedgerError:
        return AliasPointers()  # it has its own error, for whoever relies on it


def recover(ledger: Ledger, listing: RegistryListing) -> AliasPointers:
    """Verify the ledger and return the active versions that it records. Raises `LedgerError` if it does not
    verify.
    """
    verdict = ledger.verify()
    if verdict.state not in ("intact", "repairable"):
        reason = f"the ledger cannot be trusted for the active versions: {verdict.faults[0]}"
        raise LedgerError(ledger.folder, reason, "Restore the ledger, or promote each version by hand.")
    there = {entry.alias.lower() for entry in listing.entries}
    told = replay(ledger.entries())
    states = told.states.items()
    kept = {alias: one for alias, one in states if alias in there or one.history or one.folders}
    return AliasPointers(kept)


def accepted_contents(ledger: Path, full_name: str) -> AcceptedContents:
    """Return what the ledger records about the version `full_name`. Empty if the ledger cannot be read."""
    known = AcceptedContents()
    try:
        for entry in Ledger.open(ledger).entries():
            record = entry.record
            if record.subject.lower() == full_name.lower():
                told = record.details.get("language")
                known = AcceptedContents(
                    record.outputs.get("adapter", known.digest),
                    told if isinstance(told, str) else known.language,
                    known.imported or record.action == "import",
                )
    except LedgerError:
        return AcceptedContents()
    return known


def _after(pointers: AliasPointers, entry: Entry) -> AliasPointers:
    record = entry.record
    alias, at, version = record.subject.partition("@")
    try:
        names.alias(alias)
        if at:
            names.version(version)
    except ValueError:
        return pointers
    folders = _folders(record)
    if record.action in _DIVISIONS:
        return _divided(pointers, alias, record.details.get("now"), entry.time, folders)
    if not at:
        return pointers
    match record.action:
        case "promote":
            before = str(record.details.get("before", "")).partition("@")[2].lower()
            if before and pointers.active(alias) != before:
                pointers = pointers.promote(alias, before, folders.get(before))
            return pointers.promote(alias, version, folders.get(version.lower()))
        case "rollback":
            return _rolled_back(pointers, alias, version, folders.get(version.lower()))
        case "retire" | "delete":
            kept, folder = record.action == "retire", folders.get(version.lower())
            return pointers.drop(alias, version, keep=kept, folder=folder)
        case _ if "adapter" in record.outputs:
            return _added(pointers, record, alias, version, folders)
        case _:
            return pointers


def _added(
    pointers: AliasPointers, record: Record, alias: str, version: str, folders: Mapping[str, FolderRecord]
) -> AliasPointers:
    """Return the active versions after a ledger entry that added a version. The alias's first version becomes
    active, unless the entry names another active version.
    """
    standing = str(record.details.get("active", "")).partition("@")[2].lower()
    if pointers.is_retired(alias, version):
        pointers = pointers.drop(alias, version, keep=False)
    if standing and pointers.active(alias) != standing:
        return pointers.promote(alias, standing, folders.get(standing))
    if pointers.active(alias) in (None, version.lower()):
        return pointers.promote(alias, version)  # in the registry now, if it was in a folder before
    return pointers


def _folders(record: Record) -> dict[str, FolderRecord]:
    """Return the folders outside the registry that an entry's record names, by version."""
    told: Any = record.details.get("folders")
    found: dict[str, FolderRecord] = {}
    for value in told if isinstance(told, list | tuple) else ():
        with suppress(AttributeError, KeyError, TypeError, ValueError):
            folder = FolderRecord.from_json(value)
            found[folder.version.lower()] = folder
    return found


def _rolled_back(
    pointers: AliasPointers, alias: str, version: str, folder: FolderRecord | None
) -> AliasPointers:
    """Return the active versions after a ledger entry that rolled `alias` back to `version`."""
    history = pointers.state(alias).history
    served = {item for item in history if not pointers.is_retired(alias, item)}
    back = pointers.roll_back(alias, served)
    if back is not None and back.active(alias) == version.lower():
        return back
    return pointers.promote(alias, version, folder)


def _divided(
    pointers: AliasPointers, alias: str, now: Any, since: str, folders: Mapping[str, FolderRecord]
) -> AliasPointers:
    """Return the active versions after a ledger entry that set or ended a canary or shadow. `now` is the
    division of requests that the entry records.
    """
    for version, folder in folders.items():
        if pointers.active(alias) != version:
            pointers = pointers.promote(alias, version, folder)
    told: Mapping[str, Any] = now if isinstance(now, dict) else {}
    shares, shadowed = told.get("shares"), told.get("shadow")
    active = pointers.active(alias)
    split: TrafficSplit | None = None
    if isinstance(shares, dict) and active is not None and active in shares:
        canaries = tuple((str(v), float(share)) for v, share in shares.items() if v != active)
        split = TrafficSplit(active, canaries, since) if canaries else None
    shadow: Shadow | None = None
    if isinstance(shadowed, dict):
        for version, percent in shadowed.items():
            shadow = Shadow(str(version), float(percent), since)
    return pointers.set_split(alias, split, shadow)
