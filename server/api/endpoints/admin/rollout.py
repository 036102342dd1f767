"""Handles `/admin/adapters/{alias}/canary`, `/shadow`, `/settle` and `/rollout`, which divide an alias's
requests between versions.
"""

from __future__ import annotations

from collections.abc import Awaitable

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.registry.traffic import shares_to_json
from server.api.endpoints.admin.audit import MAX_ADMIN_BODY, AuditLog
from server.api.endpoints.context import Context, reply
from server.api.fields.admin import CanaryFields, SettleFields, ShadowFields
from server.api.fields.decode import to_fields
from server.api.wire.body import is_empty
from server.rollout.changes import AliasShares, RolloutChanges


class Rollout:
    """Handlers of the rollout endpoints (canary, shadow, settle, rollout). Status 200: the change is live.
    Status 202: the change is made, but this server has not applied it yet.
    """

    def __init__(self, context: Context, audit: AuditLog) -> None:
        self._context = context
        self._audit = audit
        self._limit = min(context.settings.max_body, MAX_ADMIN_BODY)

    async def canary(self, request: Request) -> Response:
        """Send a percentage of an alias's requests to other versions of the adapter."""
        value = await self._context.read(request, limit=self._limit)
        body = to_fields(value, CanaryFields)
        changes, alias = self._changes(request)
        return await self._divided(request, "canary", alias, changes.canary(alias, body.shares))

    async def shadow(self, request: Request) -> Response:
        """Let a shadow version also answer a percentage of an alias's requests. Clients do not see its
        answers.
        """
        value = await self._context.read(request, limit=self._limit)
        body = to_fields(value, ShadowFields)
        changes, alias = self._changes(request)
        done = changes.shadow(alias, body.version, body.share)
        return await self._divided(request, "shadow", alias, done)

    async def settle(self, request: Request) -> Response:
        """Send all requests for an alias to its active version again."""
        empty = is_empty(request.scope)
        value = {} if empty else await self._context.read(request, limit=self._limit)
        body = to_fields(value, SettleFields)
        changes, alias = self._changes(request)
        return await self._divided(request, "settle", alias, changes.settle(alias, body.reason))

    async def describe(self, request: Request) -> Response:
        """Show how an alias's requests are divided between versions, with the measurements of each canary and
        shadow.
        """
        changes, alias = self._changes(request)
        return reply(await changes.describe(alias))

    def _changes(self, request: Request) -> tuple[RolloutChanges, str]:
        changes, alias = self._context.changes_for(request, request.path_params["name"])
        return changes.rollouts, alias

    async def _divided(
        self, request: Request, action: str, alias: str, work: Awaitable[AliasShares]
    ) -> Response:
        async with self._audit.record(request, action, alias) as told:
            done = await work
            told.about(done.active.full_name)
            told.outcome = "ok" if done.live else "pending"
        body = {
            "alias": done.active.alias,
            "active": done.active.version,
            **shares_to_json(done.state.split, done.state.shadow),
            "live": done.live,
        }
        return Response(msgspec.json.encode(body), 200 if done.live else 202, media_type="application/json")
