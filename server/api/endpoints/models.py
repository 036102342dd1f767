"""`GET /v1/models` and `/v1/models/{id}`: the base, aliases, versions, and `oneseek` for automatic."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from routing.route import AUTOMATIC_MODEL, UnknownNameError
from server.api.endpoints.context import Context, reply


class Models:
    """Both endpoints. `root` and `parent` are as vLLM lists LoRA adapters, but name no file."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def all(self, _request: Request) -> Response:
        """Every name that `model` takes."""
        return reply({"object": "list", "data": list(self._entries().values())})

    async def one(self, request: Request) -> Response:
        """One of them."""
        name = request.path_params["id"]
        entry = self._entries().get(name)
        if entry is None:
            raise UnknownNameError(name, "model")
        return reply(entry)

    def _entries(self) -> dict[str, dict[str, Any]]:
        generation = self._context.generation
        base, served = generation.base_name, generation.served
        listed: list[tuple[str, str, str | None]] = [(AUTOMATIC_MODEL, base, None), (base, base, None)]
        for alias in served.aliases():
            listed.append((alias, served.active(alias).full_name, base))
            listed += [(version.full_name, version.full_name, base) for version in served.versions(alias)]
        return {name: self._entry(name, root, parent) for name, root, parent in listed}

    def _entry(self, name: str, root: str, parent: str | None) -> dict[str, Any]:
        return {
            "id": name,
            "object": "model",
            "created": int(self._context.started),
            "owned_by": "oneseek",
            "root": root,
            "parent": parent,
            "max_model_len": self._context.generation.engine.info.context,
        }
