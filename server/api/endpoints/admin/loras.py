"""Answers `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter` in vLLM's format, including errors."""

from __future__ import annotations

from functools import partial
from http import HTTPStatus

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.remote.url import is_url
from server.api.endpoints.admin.audit import MAX_ADMIN_BODY, AuditLog
from server.api.endpoints.context import Context
from server.api.fields.admin import LORA_HINTS, LORA_REFUSED, LoadFields, UnloadFields
from server.api.fields.decode import to_generation
from server.api.rendering.error_replies import reply_for
from server.api.wire.disconnect import until_gone
from server.errors import ErrorReply

_MISFITS = frozenset(
    {
        "field_too_large",
        "invalid_json",
        "invalid_value",
        "missing_required_parameter",
        "unknown_parameter",
        "unsupported_parameter",
    }
)
_TYPES = {404: "NotFoundError", 503: "ServiceUnavailableError"}


class Loras:
    """Handlers of `POST /v1/load_lora_adapter` and `/v1/unload_lora_adapter`.

    `lora_name` is an alias or `alias@version`; `lora_path` is a folder below `adapter_roots`, or a URL.
    """

    def __init__(self, context: Context, audit: AuditLog) -> None:
        self._context = context
        self._audit = audit
        self._limit = min(context.settings.max_body, MAX_ADMIN_BODY)

    async def load(self, request: Request) -> Response:
        """Load an adapter. From a folder, it is held in memory only; from a URL, it becomes a version in the
        registry.
        """
        try:
            value = await self._context.read(request, limit=self._limit)
            body = to_generation(value, LoadFields, refused=LORA_REFUSED, hints=frozenset())
            name = body.lora_name
            async with self._audit.record(request, "load", name) as told:
                changes, own = await self._context.changes_for_new(request, name, body.lora_path)
                if is_url(body.lora_path):
                    gone = partial(until_gone, request.receive)
                    added = await changes.urls.load(own, body.lora_path, gone, in_place=body.load_inplace)
                    told.about(added.name, added.digest)
                else:
                    adapter = await changes.loras.load(own, body.lora_path, in_place=body.load_inplace)
                    told.about(adapter.full_name, adapter.digest)
        except Exception as error:
            return self._failed(error)
        return Response(f"Success: LoRA adapter '{name}' added successfully.", media_type="text/plain")

    async def unload(self, request: Request) -> Response:
        """Unload an adapter."""
        try:
            value = await self._context.read(request, limit=self._limit)
            body = to_generation(value, UnloadFields, refused={}, hints=LORA_HINTS)
            name = body.lora_name
            async with self._audit.record(request, "unload", name) as told:
                changes, own = self._context.changes_for(request, name)
                adapter = await changes.loras.unload(own)
                told.about(adapter.full_name, adapter.digest)
        except Exception as error:
            return self._failed(error)
        return Response(f"Success: LoRA adapter '{name}' removed successfully.", media_type="text/plain")

    def _failed(self, error: Exception) -> Response:
        """Return an error in vLLM's format: `code` is the HTTP status, `type` the kind of error. Raises
        unexpected errors again.

        The fields appear twice: below `error`, as in current vLLM, and at the top level, as in older versions
        of vLLM, which the controller of vLLM's production-stack still reads.
        """
        reply = reply_for(error)
        if reply.code == "internal_error":
            raise error
        self._audit.metrics.rejected.labels(reply.code or "error").inc()
        detail = {"message": reply.message, "type": _type(reply), "param": reply.param, "code": reply.status}
        body = msgspec.json.encode({"error": detail, "object": "error", **detail})
        return Response(body, reply.status, headers=dict(reply.headers), media_type="application/json")


def _type(reply: ErrorReply) -> str:
    if reply.code in _MISFITS:
        return HTTPStatus.BAD_REQUEST.phrase
    if reply.status in _TYPES:
        return _TYPES[reply.status]
    return "InternalServerError" if reply.status >= 500 else "InvalidUserInput"
