"""The context that every endpoint gets, with shared helpers."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from adapters.errors import format_value
from routing.route import Route, RouteQuery
from routing.selection import split_base
from server.api.fields.unknown import UnknownFields
from server.api.parsing.adapter_names import name_adapter
from server.api.parsing.prompt import count_places
from server.api.rendering.answers import Answer, release
from server.api.wire.body import JSON_TYPES, parse_body, read_body
from server.api.wire.bounds import NO_BOUNDS, FieldBound
from server.api.wire.large import LargeReply
from server.api.wire.stream import SCORED
from server.config.settings import Settings
from server.errors import bad_field
from server.exchange import EXCHANGE, Exchange
from server.live.bases.languages import LanguageRouting
from server.metrics.engine_state import Task
from server.metrics.metrics import Metrics
from server.serving.bases import Bases
from server.serving.one_thread import SMALL, OneThread, WorkResult
from server.serving.receipt import ReceiptDraft
from server.serving.resolution import Resolution
from server.serving.service import BaseService, LiveChanges
from server.serving.voices.external import NO_EXTERNAL_MODELS, ExternalModels


@dataclass(frozen=True, slots=True)
class Context:
    """The running server from the endpoints' point of view."""

    services: Sequence[BaseService]
    """The service of each base, with the default base first."""
    settings: Settings
    metrics: Metrics
    one_thread: OneThread
    """The worker thread for work that grows with a request's size; shared by all services."""
    externals: ExternalModels = NO_EXTERNAL_MODELS
    """External services, besides the bases."""
    routing: LanguageRouting | None = None
    """Routing over the languages of all bases. Default: that of the default base."""
    started: float = field(default_factory=time.time)
    """Start of the server in Unix time; also the models' `created`."""
    began: float = field(default_factory=time.monotonic)
    """Start of the server by the monotonic clock, which is never adjusted."""
    bases: Bases = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "bases", Bases(self.services, self.routing))

    async def read(
        self,
        request: Request,
        bounds: Mapping[str, FieldBound] = NO_BOUNDS,
        *,
        limit: int | None = None,
        types: frozenset[str] = JSON_TYPES,
    ) -> dict[str, Any]:
        """Parse the JSON object in a request's body, with each field within its limit."""
        exchange: Exchange = request.scope[EXCHANGE]
        most = self.settings.max_body if limit is None else limit
        body = await read_body(request.scope, request.receive, most, types)
        exchange.body_bytes = len(body)
        if exchange.content is not None:
            exchange.content.body = body
        return await self.aside(request, lambda: parse_body(body, bounds))

    async def read_question(self, request: Request, bounds: Mapping[str, FieldBound]) -> dict[str, Any]:
        """Parse a body for an adapter: `model` names it, whichever field the request uses for that."""
        value = await self.read(request, bounds)
        return await self.aside(request, lambda: name_adapter(value, EveryName(self.services)))

    def unknown_fields(self, request: Request) -> UnknownFields:
        """The handler of a request's unknown fields."""
        exchange: Exchange = request.scope[EXCHANGE]
        return UnknownFields(exchange.receipt, strict=self.settings.strict_fields)

    async def aside(self, request: Request, work: Callable[[], WorkResult]) -> WorkResult:
        """Run `work`, whose cost grows with the body: off the event loop if the body is large."""
        exchange: Exchange = request.scope[EXCHANGE]
        return work() if exchange.body_bytes <= SMALL else await self.one_thread.run(work)

    def service_for(self, request: Request, model: str | None = None) -> BaseService:
        """The base for a request: the first that knows the header's adapter or `model`, else the default."""
        exchange: Exchange = request.scope[EXCHANGE]
        return self.service_named(exchange.headers.get(b"x-oneseek-adapter"), model)

    def service_named(self, *names: str | None) -> BaseService:
        """The base of the first of `names` that any base knows; else the default base."""
        return self.bases.named(*names)

    async def choose(
        self,
        request: Request,
        asked: RouteQuery,
        task: Task = "generate",
        within: BaseService | None = None,
    ) -> tuple[BaseService, Route | None]:
        """Choose the base that answers, and return it with the route for `Generation.choose`. See
        `Bases.choose`.
        """
        return await self.bases.choose(request.scope[EXCHANGE], asked, task, within)

    def check_headers(self, exchange: Exchange) -> None:
        """Raise `EngineBusyError` if the headers already show that the queue is full."""
        header = exchange.headers.get(b"x-oneseek-adapter")
        if header is not None or len(self.services) == 1:
            self.service_named(header).generation.gate.check_headers(exchange)

    def check_body(
        self, request: Request, value: Mapping[str, object], prompts: str = "", most: int | None = None
    ) -> None:
        """Raise `EngineBusyError` if the queue is full for the adapter in a body that is not validated yet.

        `prompts` is the field that may hold several prompts, of which at most `most` run at once.
        """
        model = value.get("model")
        service = self.service_for(request, model if isinstance(model, str) else None)
        if service.generation.gate.places.full:  # else there is time until its places are taken
            places = count_places(value, prompts)
            places = places if most is None else max(1, min(most, places))
            service.generation.gate.check_body(request.scope[EXCHANGE], model, places)

    def changes_for(self, request: Request, name: str) -> tuple[LiveChanges, str]:
        """The changes of the base that `name` is on (else the default base), and the name without its base.

        `base:adapter` names the base. Raises `ApiError` for a base that is not served.
        """
        service = self.base_of(name)
        request.scope[EXCHANGE].base = service.runtime.name
        changes = service.changes
        assert changes is not None, "endpoints that change adapters exist only if there is a registry"
        return changes, split_base(name)[1]

    async def changes_for_new(self, request: Request, name: str, path: str) -> tuple[LiveChanges, str]:
        """The changes for a new adapter in the folder `path`. Without a base in `name`: the only base it
        fits.
        """
        known = split_base(name)[0] is not None or self.bases.names().index_of(name) is not None
        if known or not self.bases.several:
            return self.changes_for(request, name)
        places = [one for one in self.services if one.changes and await one.changes.registry.takes(path)]
        base = f"{places[0].runtime.name}:" if len(places) == 1 else ""
        return self.changes_for(request, base + name)

    def base_of(self, name: str) -> BaseService:
        """The base of `base:adapter` or `adapter`; else the default base.

        Raises `ApiError` for a base that is not served.
        """
        base, _ = split_base(name)
        if base is None:
            return self.service_named(name)
        index = self.bases.names().named_base(base)
        if index is None:
            message = f"base {format_value(base)} is not served here; GET /v1/models lists the bases."
            raise bad_field("name", message, code="base_not_found", status=404)
        return self.services[index]

    def default_length(self, service: BaseService) -> int | None:
        """Default answer length in tokens; None: the rest of the context."""
        return self.settings.default_max_tokens or service.defaults.max_new_tokens


@dataclass(frozen=True, slots=True)
class EveryName:
    """Names of all bases and their adapters."""

    services: Sequence[BaseService]

    def knows(self, name: str) -> bool:
        """True for the name of a base or an adapter."""
        return any(service.runtime.knows(name) for service in self.services)

    def is_base(self, name: str) -> bool:
        """True for the name of a base, and for `base`."""
        return any(service.runtime.served.is_base(name) for service in self.services)

    def full_name(self, name: str) -> str:
        """The canonical spelling of an adapter's name."""
        _, rest = split_base(name)
        for service in self.services:
            if service.runtime.knows(name) and service.runtime.served.is_adapter(rest):
                return f"{service.runtime.name}:{service.runtime.served.resolve(rest).full_name}"
        return name.strip().lower()


def reply(value: Any) -> Response:
    """Return `value` as a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def large_reply(
    render: Callable[[], Iterator[bytes]], answers: Sequence[Answer], aside: OneThread
) -> Response:
    """Render `answers` and free them; off the event loop if they are large."""
    if sum([answer.scored for answer in answers]) <= SCORED:
        return Response(b"".join(render()), media_type="application/json")

    def pieces() -> Iterator[bytes]:
        yield from render()
        release(answers)

    return LargeReply(pieces(), aside)


def question(
    request: Request,
    model: str,
    turns: tuple[str, ...],
    opening: tuple[str, ...] = (),
    system: str | None = None,
) -> RouteQuery:
    """The routing query for `request`; `opening` and `system` as in `RouteQuery`."""
    exchange: Exchange = request.scope[EXCHANGE]
    return RouteQuery(
        header=exchange.headers.get(b"x-oneseek-adapter"),
        model=model,
        turns=turns,
        accept_language=exchange.headers.get(b"accept-language"),
        opening=opening,
        system=system,
    )


def draft_receipt(
    asked: bool, exchange: Exchange, service: BaseService, resolution: Resolution
) -> ReceiptDraft | None:
    """The receipt for the answer's body, if requested."""
    runtime = service.runtime
    return ReceiptDraft(exchange, resolution, runtime.name, runtime.info.base_digest) if asked else None


def envelope(answer_id: str, kind: str, resolution: Resolution) -> dict[str, Any]:
    """The common first fields of every answer and every stream chunk."""
    return {
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": resolution.name,
        "system_fingerprint": resolution.fingerprint,
    }
