"""Answers `GET /v1/adapters` and `/v1/adapters/{name}` with the server's adapters, their measurements and
origin.

These endpoints need no admin key, so they show no folder, no URL and no free-form notes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.errors import AdapterError, FileRefusedError, UnknownInLedgerError
from adapters.ledger import Entry, Ledger, Lineage
from adapters.ledger.chain import LEDGER_FILE
from adapters.ledger.lineage import trace
from adapters.lora.manifest import Adapter, read_fields
from routing.route import UnknownNameError
from routing.selection import split_base
from server.api.endpoints.context import Context, reply
from server.live.inventory import describe_entry
from server.metrics.engine_state import EngineState
from server.rollout.outcomes import VersionFigures
from server.serving.service import BaseService

CARD = ("base_digest", "dataset", "dataset_digest", "rows", "rank", "alpha", "targets", "metrics", "created")
"""Fields of an adapter version's oneseek.json that `GET /v1/adapters/{name}` shows."""

_Figures = Mapping[tuple[str, str], VersionFigures]


class Adapters:
    """Handlers of `GET /v1/adapters` and `GET /v1/adapters/{name}`."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._ledger = _LedgerReader(context.settings.home / "ledger")

    async def all(self, _request: Request) -> Response:
        """List every base model, and every adapter alias with its versions."""
        services = self._context.services
        figures = await asyncio.to_thread(lambda: [service.rollouts.figures() for service in services])
        return reply(
            {
                "object": "list",
                "bases": [_base(service) for service in services],
                "data": [
                    _alias(service, alias, numbers)
                    for service, numbers in zip(services, figures, strict=True)
                    for alias in service.runtime.served.aliases()
                ],
                "changeable": any(service.changes is not None for service in services)
                and bool(self._context.settings.admin_keys),
            }
        )

    async def one(self, request: Request) -> Response:
        """Show one adapter version, by any name that the field `model` accepts, with its oneseek.json and how
        it was made.
        """
        name = request.path_params["name"]
        service = self._context.service_named(name)
        served, (_, rest) = service.runtime.served, split_base(name)
        if not service.runtime.knows(name) or not served.is_adapter(rest):
            raise UnknownNameError(name, "name")
        adapter = served.resolve(rest)
        figures, card, lineage = await asyncio.to_thread(
            lambda: (service.rollouts.figures(), _card(adapter), self._ledger.lineage(adapter))
        )
        version = _version(service, service.runtime.engine.state(), adapter, figures)
        return reply({**version, "base_name": service.runtime.name, "card": card, **lineage})


class _LedgerReader:
    """Reads the adapter ledger (a signed log of how adapters were made) and checks its signatures. Reads the
    file again only if it has changed.
    """

    def __init__(self, folder: Path) -> None:
        self._ledger = Ledger.open(folder)
        self._file = folder / LEDGER_FILE
        self._read: tuple[tuple[int, int], tuple[Entry, ...]] | None = None

    def lineage(self, adapter: Adapter) -> dict[str, Any]:
        """Return how an adapter version was made, and the state of its ledger entries: `signed`, `none` (not
        in the ledger) or `damaged`.
        """
        try:
            return {"ledger": "signed", "lineage": _tree(_trace(self._entries(), adapter))}
        except UnknownInLedgerError:
            return {"ledger": "none", "lineage": None}
        except FileRefusedError:
            return {"ledger": "damaged", "lineage": None}

    def _entries(self) -> tuple[Entry, ...]:
        try:
            stat = self._file.stat()
        except OSError:
            return ()
        stamp = stat.st_mtime_ns, stat.st_size
        known = self._read
        if known is None or known[0] != stamp:
            known = self._read = stamp, tuple(self._ledger.entries())
        return known[1]


def _trace(entries: tuple[Entry, ...], adapter: Adapter) -> Lineage:
    """Find the ledger's entries about an adapter by its name, since the same weights may have several names;
    else by its digest.

    Raises `UnknownInLedgerError`.
    """
    with suppress(UnknownInLedgerError):
        found = trace(entries, adapter.full_name)
        if found.digest == adapter.digest:
            return found
    return trace(entries, adapter.digest)


def _base(service: BaseService) -> dict[str, Any]:
    runtime = service.runtime
    return {
        "name": runtime.name,
        "digest": runtime.info.base_digest,
        "engine": runtime.info.name,
        "context": runtime.info.context,
        "blends": runtime.info.blends,
        "task": runtime.info.task,
        "languages": runtime.served.languages(),
    }


def _alias(service: BaseService, alias: str, figures: _Figures) -> dict[str, Any]:
    served, state = service.runtime.served, service.runtime.engine.state()
    active, key = served.active(alias), alias.lower()
    names, spoken = served.snapshot, served.languages().items()
    split, shadow = names.splits.get(key), names.shadows.get(key)
    since = split.since if split is not None else shadow.since if shadow is not None else None
    return {
        "alias": active.alias,
        "base_name": service.runtime.name,
        "language": active.language or next((code for code, name in spoken if name.lower() == key), None),
        "active": active.version,
        "trial_since": since,
        "versions": [_version(service, state, adapter, figures) for adapter in served.versions(alias)],
    }


def _version(service: BaseService, state: EngineState, adapter: Adapter, figures: _Figures) -> dict[str, Any]:
    served, version = service.runtime.served, adapter.version.lower()
    alias = adapter.alias.lower()
    names = served.snapshot
    split, shadow = names.splits.get(alias), names.shadows.get(alias)
    damaged = service.changes.follower.damaged if service.changes is not None else {}
    return {
        "name": adapter.full_name,
        "alias": adapter.alias,
        "version": adapter.version,
        "digest": adapter.digest or None,
        "language": adapter.language,
        "active": served.is_adapter(alias) and served.active(alias) == adapter,
        "tier": state.resident.get(adapter.digest) if adapter.digest else None,
        "problem": adapter.problem or damaged.get(adapter.full_name.lower()),
        "share": split.shares.get(version) if split is not None else None,
        "shadow": shadow.percent if shadow is not None and shadow.version == version else None,
        "running": state.running.get(adapter.digest, 0),
        "waiting": state.waiting.get(adapter.digest, 0),
        "figures": _figures(figures.get((alias, version))),
    }


def _figures(found: VersionFigures | None) -> dict[str, Any] | None:
    return None if found is None else msgspec.to_builtins(found)


def _card(adapter: Adapter) -> dict[str, Any]:
    """Return the fields of an adapter version's oneseek.json that clients may see; empty if the file is
    damaged.
    """
    try:
        fields = read_fields(adapter.path)
    except AdapterError:
        return {}
    return {name: fields[name] for name in CARD if name in fields}


def _tree(lineage: Lineage) -> dict[str, Any]:
    return {
        "role": lineage.role,
        "digest": lineage.digest,
        "subject": lineage.subject,
        "made": [_entry(entry) for entry in lineage.makers],
        "since": [_entry(entry) for entry in lineage.history],
        "sources": [_tree(source) for source in lineage.sources],
        "repeated": lineage.repeated,
    }


def _entry(entry: Entry) -> dict[str, Any]:
    return {**describe_entry(entry), "metrics": dict(entry.record.metrics)}
