"""Handles `/admin/adapters`: lists adapters and changes the adapter registry. A change that is answered with
status 200 is live.
"""

from __future__ import annotations

from collections.abc import Awaitable
from functools import partial
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.registry.verify import VersionVerdict
from adapters.remote.url import describe_source
from server.api.endpoints.admin.audit import MAX_ADMIN_BODY, AuditLog
from server.api.endpoints.context import Context, reply
from server.api.fields.admin import AddFields, NoFields
from server.api.fields.decode import to_fields
from server.api.wire.body import is_empty
from server.api.wire.disconnect import until_gone
from server.live.registry_changes import ChangeResult, RegistryChanges, check_names
from server.serving.service import BaseService


class Admin:
    """Handlers of `/admin/adapters`. Status 200: the change is live. Status 202: the change is in the
    registry, but this server has not applied it yet.
    """

    def __init__(self, context: Context, audit: AuditLog) -> None:
        self._context = context
        self._audit = audit
        self._limit = min(context.settings.max_body, MAX_ADMIN_BODY)

    async def all(self, _request: Request) -> Response:
        """List every adapter version that is served or in the registry."""
        entries: dict[str, dict[str, Any]] = {}
        for service in self._context.services:
            if service.changes is None:
                continue
            for entry in await service.changes.inventory.all():
                name = entry["name"].lower()
                # What one base does not serve, another may.
                if name not in entries or _is_here(entry):
                    entries[name] = self._with_base(entry, service)
        return reply({"object": "list", "data": list(entries.values())})

    async def one(self, request: Request) -> Response:
        """Show one adapter version with all its details."""
        name = request.path_params["name"]
        changes, own = self._context.changes_for(request, name)
        return reply(self._with_base(await changes.inventory.one(own), self._context.base_of(name)))

    async def add(self, request: Request) -> Response:
        """Add an adapter version from a folder below `adapter_roots`, or from a URL below `adapter_urls`."""
        value = await self._context.read(request, limit=self._limit)
        body = to_fields(value, AddFields)
        found, alias = await self._context.changes_for_new(request, body.alias or "", body.path)
        check_names(alias or None, body.version, body.language)
        change = found.registry.add(
            body.path,
            alias=alias or None,
            version=body.version,
            language=body.language,
            digest=body.digest,
            gone=partial(until_gone, request.receive),
        )
        return await self._changed(request, "add", describe_source(body.path), change)

    async def promote(self, request: Request) -> Response:
        """Make an adapter version the active one of its alias."""
        await self._no_fields(request)
        changes, name = self._changes(request, request.path_params["name"])
        return await self._changed(request, "promote", name, changes.promote(name))

    async def rollback(self, request: Request) -> Response:
        """Make the previously active version of an alias active again."""
        await self._no_fields(request)
        changes, name = self._changes(request, request.path_params["name"])
        return await self._changed(request, "rollback", name, changes.rollback(name))

    async def retire(self, request: Request) -> Response:
        """Stop serving a version of an adapter."""
        await self._no_fields(request)
        changes, name = self._changes(request, request.path_params["name"])
        return await self._changed(request, "retire", name, changes.retire(name))

    async def verify(self, request: Request) -> Response:
        """Check that the files of adapter versions still have their recorded digests."""
        await self._no_fields(request)
        changes, name = self._changes(request, request.path_params["name"])
        async with self._audit.record(request, "verify", name):
            verdicts = await changes.verify(name)
        return reply({"object": "list", "data": [_verdict(verdict) for verdict in verdicts]})

    def _with_base(self, entry: dict[str, Any], service: BaseService) -> dict[str, Any]:
        if len(self._context.services) == 1:
            return entry
        return entry | {"base_name": service.runtime.name if _is_here(entry) else None}

    def _changes(self, request: Request, name: str) -> tuple[RegistryChanges, str]:
        changes, name = self._context.changes_for(request, name)
        return changes.registry, name

    async def _changed(
        self, request: Request, action: str, name: str, change: Awaitable[ChangeResult]
    ) -> Response:
        async with self._audit.record(request, action, name) as told:
            done = await change
            told.about(done.name, done.digest)
            told.outcome = "ok" if done.live else "pending"
        return Response(
            msgspec.json.encode(_change(done)), 200 if done.live else 202, media_type="application/json"
        )

    async def _no_fields(self, request: Request) -> None:
        """Refuse a request whose JSON body has any field. No body, or an empty object, is accepted."""
        if not is_empty(request.scope):
            to_fields(await self._context.read(request, limit=self._limit), NoFields)


def _is_here(entry: dict[str, Any]) -> bool:
    """Return True if the adapter version is served, or would be served if its files were not damaged."""
    return entry["served"] or entry["problem"] is not None


def _change(change: ChangeResult) -> dict[str, Any]:
    told: dict[str, Any] = {
        "name": change.name,
        "digest": change.digest,
        "live": change.live,
        "before": change.before,
        "new": change.new,
        "active": change.active,
        "active_version": change.stands,
        "promote": _promotion(change),
        "base": None if change.base_recorded else "unverified",
        "contested": list(change.contested) or None,
    }
    return {key: value for key, value in told.items() if value is not None}


def _promotion(change: ChangeResult) -> str | None:
    """Return the request (method and path) that makes an added version the active one; None if none is
    needed.
    """
    return f"POST /admin/adapters/{change.name}/promote" if change.stands and not change.active else None


def _verdict(verdict: VersionVerdict) -> dict[str, Any]:
    problem = verdict.problem
    if problem is not None:
        problem = problem.replace(str(verdict.entry.folder), verdict.entry.full_name)
    return {
        "name": verdict.entry.full_name,
        "whole": problem is None,
        "problem": problem,
        "fits_the_base": verdict.fits,
        "digest": verdict.adapter.digest if verdict.adapter is not None else None,
    }
