"""Every adapter that a server knows of: those that it serves, and those that its registry keeps."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from adapters import names
from adapters.errors import AdapterError, FileRefusedError, UnknownAdapterError, UnknownInLedgerError
from adapters.ledger import Entry, Ledger, Lineage
from adapters.lora.manifest import Adapter, read_fields
from adapters.registry.listing import Held, Shelf
from server.live.follower import Watch
from server.live.registry_changes import Administration, not_found
from server.serving.generation import Generation


class Inventory:
    """What is there, and where it is from. Names no folder of the host."""

    def __init__(self, generation: Generation, watch: Watch, administration: Administration) -> None:
        self._generation = generation
        self._watch = watch
        self._follow = watch.follow
        self._administration = administration

    async def all(self) -> list[dict[str, Any]]:
        """Every version, by alias, then in natural order."""
        shelf = await self._administration.shelf()
        return [*(await self._entries(shelf)).values()]

    async def one(self, name: str) -> dict[str, Any]:
        """All that is known of `alias@version`, or of what an alias stands for. Raises `ApiError` (404)."""
        shelf = await self._administration.shelf()
        entries = await self._entries(shelf)
        registry = self._generation.registry
        if registry.is_adapter(name):
            adapter = registry.resolve(name)
            full_name, folder = adapter.full_name, adapter.path
        else:
            held = self._administration.found(shelf, name)
            full_name, folder = held.full_name, held.folder
        entry = entries.get(full_name.lower())
        if entry is None:
            raise not_found(UnknownAdapterError(full_name))  # it went in between
        manifest = await asyncio.to_thread(_fields, folder)
        digest = entry["digest"]
        return {
            **entry,
            "history": list(shelf.actives.line(entry["alias"]).history),
            "manifest": manifest,
            "lineage": await asyncio.to_thread(self._lineage, digest) if digest else None,
        }

    async def _entries(self, shelf: Shelf) -> dict[str, dict[str, Any]]:
        registry = self._generation.registry.snapshot
        found = {adapter.full_name.lower(): self._served(adapter) for adapter in registry.adapters()}
        kept = {held.full_name.lower(): held for held in shelf.held}
        unread = [held for name, held in kept.items() if name not in found]
        for held, fields in await asyncio.to_thread(_read_all, unread):
            found[held.full_name.lower()] = self._kept(shelf, held, fields)
        return dict(sorted(found.items(), key=_order))

    def _served(self, adapter: Adapter) -> dict[str, Any]:
        state, registry = self._generation.engine.state(), self._generation.registry
        kept = adapter.path.is_relative_to(self._follow.home / "registry")
        source = "loaded" if self._watch.is_loaded(adapter) else "registry" if kept else "start"
        names, alias = registry.snapshot, adapter.alias.lower()
        split, shadow = names.splits.get(alias), names.shadows.get(alias)
        if shadow is not None and shadow.version != adapter.version.lower():
            shadow = None
        return {
            "name": adapter.full_name,
            "alias": adapter.alias,
            "version": adapter.version,
            "digest": adapter.digest,
            "language": adapter.language,
            "served": True,
            "active": registry.is_adapter(adapter.alias) and registry.active(adapter.alias) == adapter,
            "retired": False,
            "tier": state.resident.get(adapter.digest),
            "share": split.shares.get(adapter.version.lower()) if split is not None else None,
            "shadow": shadow.percent if shadow is not None else None,
            "requests": {
                "running": state.running.get(adapter.digest, 0),
                "waiting": state.waiting.get(adapter.digest, 0),
            },
            "from": source,
        }

    def _kept(self, shelf: Shelf, held: Held, fields: dict[str, Any]) -> dict[str, Any]:
        """A version on disk that is not served here: retired, for another base, or not followed yet."""
        return {
            "name": held.full_name,
            "alias": held.alias,
            "version": held.version,
            "digest": fields.get("digest"),
            "language": fields.get("language"),
            "served": False,
            "active": False,
            "retired": shelf.is_retired(held),
            "tier": None,
            "share": None,
            "shadow": None,
            "requests": {"running": 0, "waiting": 0},
            "from": "registry",
        }

    def _lineage(self, digest: str) -> dict[str, Any] | None:
        """What the ledger knows of a digest, in brief; None where it knows nothing, or cannot be read."""
        try:
            found = Ledger.open(self._follow.home / "ledger").lineage(digest)
        except (UnknownInLedgerError, FileRefusedError):
            return None
        return _brief(found)


def _order(item: tuple[str, dict[str, Any]]) -> tuple[str, Any]:
    alias, _, version = item[0].partition("@")
    return alias, names.natural(version)


def _fields(folder: Path) -> dict[str, Any]:
    """What oneseek.json notes; nothing where it is damaged, which verify says."""
    try:
        return read_fields(folder)
    except AdapterError:
        return {}


def _read_all(held: Iterable[Held]) -> list[tuple[Held, dict[str, Any]]]:
    return [(one, _fields(one.folder)) for one in held]


def _brief(lineage: Lineage) -> dict[str, Any]:
    return {
        "subject": lineage.subject,
        "made": [_entry(entry) for entry in lineage.makers],
        "since": [_entry(entry) for entry in lineage.history],
        "sources": [
            {"role": one.role, "digest": one.digest, "subject": one.subject} for one in lineage.sources
        ],
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {
        "sequence": entry.sequence,
        "time": entry.time,
        "action": entry.record.action,
        "subject": entry.record.subject,
        "hash": entry.hash,
    }
