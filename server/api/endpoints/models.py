"""Answers `GET /v1/models` and `/v1/models/{id}` with the bases, adapter aliases, adapter versions, and
`oneseek` (the server chooses the adapter).
"""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from adapters.lora.manifest import Adapter
from routing.route import UnknownNameError
from routing.selection import AUTOMATIC_MODEL, is_automatic, split_base
from server.api.endpoints.context import Context, reply
from server.serving.service import BaseService


class Models:
    """Handlers of `/v1/models`. `root` and `parent` have the same meaning as in vLLM's list of LoRA adapters,
    but never hold a path.
    """

    def __init__(self, context: Context) -> None:
        self._context = context

    async def all(self, _request: Request) -> Response:
        """List every name that the field `model` accepts, except blends."""
        return reply({"object": "list", "data": list(self._entries().values())})

    async def one(self, request: Request) -> Response:
        """Answer with the description of one model; with 404 for an unknown name."""
        name = request.path_params["id"]
        entry = self._entry_of(name)
        if entry is None:
            raise UnknownNameError(name, "model")
        return reply(entry)

    def _entry_of(self, name: str) -> dict[str, Any] | None:
        """Return the description of the model `name`, which may be any name that the field `model` accepts
        except a blend; None if it is unknown.
        """
        entries, names = self._entries(), self._context.bases.names()
        base, rest = split_base(names.meaning(name))
        if base is None and is_automatic(rest):
            return entries[AUTOMATIC_MODEL]
        index = names.index_of(rest) if base is None else names.named_base(base)
        if index is None:
            return None
        served = self._context.services[index].runtime.served
        if is_automatic(rest):
            return entries[AUTOMATIC_MODEL]
        if served.is_base(rest):
            return entries.get(rest, entries[served.base_name])
        if not served.is_adapter(rest):
            return None
        adapter = served.resolve(rest)
        return entries[adapter.full_name if "@" in rest else adapter.alias]

    def _entries(self) -> dict[str, dict[str, Any]]:
        first = self._context.services[0]
        entries = {AUTOMATIC_MODEL: self._entry(first, AUTOMATIC_MODEL, first.runtime.name, None)}
        for service in self._context.services:
            base, served = service.runtime.name, service.runtime.served
            entries[base] = self._entry(service, base, base, None)
            for other in served.snapshot.base_aliases:
                entries[other] = self._entry(service, other, base, None)
            for alias in served.aliases():
                active = served.active(alias)
                entries[alias] = self._entry(service, alias, active.full_name, base, active)
                for version in served.versions(alias):
                    name = version.full_name
                    entries[name] = self._entry(service, name, name, base, version)
        return entries

    def _entry(
        self,
        service: BaseService,
        name: str,
        root: str,
        parent: str | None,
        adapter: Adapter | None = None,
    ) -> dict[str, Any]:
        """Return OpenAI's model object, with a field `problem` if the model cannot be served now."""
        problem = adapter.problem if adapter is not None else None
        return {
            "id": name,
            "object": "model",
            "created": int(self._context.started),
            "owned_by": "oneseek",
            "root": root,
            "parent": parent,
            "max_model_len": service.runtime.info.context,
            **({"problem": problem} if problem is not None else {}),
        }
