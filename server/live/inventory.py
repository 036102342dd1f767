"""Lists every adapter that a server knows: those that it serves, and those that its registry keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, FileRefusedError, UnknownAdapterError, UnknownInLedgerError
from adapters.ledger import Entry, Ledger, Lineage
from adapters.lora.manifest import Adapter, read_fields
from adapters.registry.listing import RegistryListing, VersionFolder
from server.live.follower import RegistryFollower
from server.live.registry_changes import RegistryChanges, not_found
from server.live.runtime import Runtime


class Inventory:
    """Describes the adapters and their origin to clients. No description names a folder of the host."""

    def __init__(
        self, runtime: Runtime, follower: RegistryFollower, registry_changes: RegistryChanges
    ) -> None:
        self._runtime = runtime
        self._follower = follower
        self._options = follower.options
        self._registry_changes = registry_changes

    async def all(self) -> list[dict[str, Any]]:
        """Return every version, sorted by alias, then by version in natural order."""
        listing = await self._registry_changes.listing()
        return [*(await self._entries(listing)).values()]

    async def one(self, name: str) -> dict[str, Any]:
        """Return everything about `alias@version`, or about an alias's active version. Raises `ApiError`
        (404).
        """
        listing = await self._registry_changes.listing()
        entries = await self._entries(listing)
        served = self._runtime.served
        if served.is_adapter(name):
            adapter = served.resolve(name)
            full_name, folder = adapter.full_name, adapter.path
        else:
            version = self._registry_changes.find(listing, name)
            full_name, folder = version.full_name, version.folder
        entry = entries.get(full_name.lower())
        if entry is None:
            raise not_found(UnknownAdapterError(full_name))  # it went in between
        manifest = await asyncio.to_thread(_fields, folder)
        digest = entry["digest"]
        return {
            **entry,
            "history": list(listing.pointers.state(entry["alias"]).history),
            "manifest": manifest,
            "lineage": await asyncio.to_thread(self._lineage, digest) if digest else None,
        }

    async def _entries(self, listing: RegistryListing) -> dict[str, dict[str, Any]]:
        registry = self._runtime.served.snapshot
        found = {adapter.full_name.lower(): self._served(adapter) for adapter in registry.adapters()}
        kept = {entry.full_name.lower(): entry for entry in listing.entries}
        unread = [one for name, one in kept.items() if name not in found and _is_kept(listing, one)]
        for entry, fields in await asyncio.to_thread(_read_all, unread):
            found[entry.full_name.lower()] = self._kept(listing, entry, fields)
        return dict(sorted(found.items(), key=_order))

    def _served(self, adapter: Adapter) -> dict[str, Any]:
        state, served = self._runtime.engine.state(), self._runtime.served
        kept = adapter.path.is_relative_to(self._options.home / "registry")
        source = "loaded" if self._follower.is_loaded(adapter) else "registry" if kept else "start"
        names, alias = served.snapshot, adapter.alias.lower()
        split, shadow = names.splits.get(alias), names.shadows.get(alias)
        if shadow is not None and shadow.version != adapter.version.lower():
            shadow = None
        return {
            "name": adapter.full_name,
            "alias": adapter.alias,
            "version": adapter.version,
            "digest": adapter.digest or None,
            "language": adapter.language,
            "served": adapter.problem is None,
            "problem": adapter.problem or self._follower.damaged.get(adapter.full_name.lower()),
            "base": "verified" if adapter.base_digest is not None else "unverified",
            "active": served.is_adapter(adapter.alias) and served.active(adapter.alias) == adapter,
            "retired": False,
            "tier": state.resident.get(adapter.digest) if adapter.problem is None else None,
            "share": split.shares.get(adapter.version.lower()) if split is not None else None,
            "shadow": shadow.percent if shadow is not None else None,
            "requests": {
                "running": state.running.get(adapter.digest, 0),
                "waiting": state.waiting.get(adapter.digest, 0),
            },
            "from": source,
        }

    def _kept(self, listing: RegistryListing, entry: VersionFolder, fields: dict[str, Any]) -> dict[str, Any]:
        """Describe a version on disk that is not served here: it is retired, belongs to another base, or is
        so new that this server has not noticed it yet.
        """
        return {
            "name": entry.full_name,
            "alias": entry.alias,
            "version": entry.version,
            "digest": fields.get("digest"),
            "language": fields.get("language"),
            "served": False,
            "problem": None,
            "base": "verified" if fields.get("base_digest") is not None else "unverified",
            "active": False,
            "retired": listing.is_retired(entry),
            "tier": None,
            "share": None,
            "shadow": None,
            "requests": {"running": 0, "waiting": 0},
            "from": "registry" if entry.outside is None else "start",
        }

    def _lineage(self, digest: str) -> dict[str, Any] | None:
        """Return a summary of the ledger's entries about a digest; None if there are none, or the ledger
        cannot be read.
        """
        try:
            found = Ledger.open(self._options.home / "ledger").lineage(digest)
        except (UnknownInLedgerError, FileRefusedError):
            return None
        return _brief(found)


def _is_kept(listing: RegistryListing, entry: VersionFolder) -> bool:
    """True if a version is in the registry's folder, or if the registry records it as retired or once active.

    Other versions are listed only if they are served.
    """
    state = listing.pointers.state(entry.alias)
    return entry.outside is None or entry.version.lower() in {*state.retired, *state.history}


def _order(item: tuple[str, dict[str, Any]]) -> tuple[str, Any]:
    alias, _, version = item[0].partition("@")
    return alias, names.natural(version)


def _fields(folder: Path) -> dict[str, Any]:
    """Return the fields of oneseek.json in the adapter's folder; empty if the file is damaged, which `oneseek
    adapters verify` reports.
    """
    try:
        return read_fields(folder)
    except AdapterError:
        return {}


def _read_all(held: Iterable[VersionFolder]) -> list[tuple[VersionFolder, dict[str, Any]]]:
    return [(one, _fields(one.folder)) for one in held]


def _brief(lineage: Lineage) -> dict[str, Any]:
    return {
        "subject": lineage.subject,
        "made": [describe_entry(entry) for entry in lineage.makers],
        "since": [describe_entry(entry) for entry in lineage.history],
        "sources": [
            {"role": one.role, "digest": one.digest, "subject": one.subject} for one in lineage.sources
        ],
    }


def describe_entry(entry: Entry) -> dict[str, Any]:
    """Return the fields that identify a ledger entry, for JSON."""
    return {
        "sequence": entry.sequence,
        "time": entry.time,
        "action": entry.record.action,
        "subject": entry.record.subject,
        "hash": entry.hash,
    }
