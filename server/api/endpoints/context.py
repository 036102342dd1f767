"""What every endpoint is given, and the few lines that they share."""

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
    """The running server, as endpoints see it."""

    services: Sequence[BaseService]
    """One for each base that is served, the default one first."""
    settings: Settings
    metrics: Metrics
    one_thread: OneThread
    """Where whatever grows with a request is worked on; that of every service."""
    externals: ExternalModels = NO_EXTERNAL_MODELS
    """Services beside the bases."""
    routing: LanguageRouting | None = None
    """Over the languages of all bases. Default: the default base's own."""
    started: float = field(default_factory=time.time)
    """Unix time of the start; also the models' `created`."""
    began: float = field(default_factory=time.monotonic)
    """The same by a clock that nobody sets."""
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
        """The JSON object in a request's body, each field within its bound."""
        exchange: Exchange = request.scope[EXCHANGE]
        most = self.settings.max_body if limit is None else limit
        body = await read_body(request.scope, request.receive, most, types)
        exchange.body_bytes = len(body)
        return await self.aside(request, lambda: parse_body(body, bounds))

    async def read_question(self, request: Request, bounds: Mapping[str, FieldBound]) -> dict[str, Any]:
        """The same of what an adapter answers: `model` names it, however the request spells it."""
        value = await self.read(request, bounds)
        return await self.aside(request, lambda: name_adapter(value, EveryName(self.services)))

    def unknown_fields(self, request: Request) -> UnknownFields:
        """Takes the fields of a request that nobody knows."""
        exchange: Exchange = request.scope[EXCHANGE]
        return UnknownFields(exchange.receipt, strict=self.settings.strict_fields)

    async def aside(self, request: Request, work: Callable[[], WorkResult]) -> WorkResult:
        """What `work` returns, which grows with the request's body: of a large one not on the event loop."""
        exchange: Exchange = request.scope[EXCHANGE]
        return work() if exchange.body_bytes <= SMALL else await self.one_thread.run(work)

    def service_for(self, request: Request, model: str | None = None) -> BaseService:
        """The base that a request means: the first that knows its header or `model`, else the default."""
        exchange: Exchange = request.scope[EXCHANGE]
        return self.service_named(exchange.headers.get(b"x-oneseek-adapter"), model)

    def service_named(self, *names: str | None) -> BaseService:
        """The base that knows the first of `names` that any base knows, else the default one."""
        return self.bases.named(*names)

    async def choose(
        self,
        request: Request,
        asked: RouteQuery,
        task: Task = "generate",
        within: BaseService | None = None,
    ) -> tuple[BaseService, Route | None]:
        """As `Bases.choose`, with the route for `Generation.choose`."""
        return await self.bases.choose(request.scope[EXCHANGE], asked, task, within)

    def check_headers(self, exchange: Exchange) -> None:
        """Raise `EngineBusyError` if the headers are enough to know that the queue has no place."""
        header = exchange.headers.get(b"x-oneseek-adapter")
        if header is not None or len(self.services) == 1:
            self.service_named(header).generation.gate.check_headers(exchange)

    def check_body(
        self, request: Request, value: Mapping[str, object], prompts: str = "", most: int | None = None
    ) -> None:
        """The same for what a body names; its fields need not have been checked.

        `prompts` is the field that may hold several, of which `most` are worked on at once.
        """
        model = value.get("model")
        service = self.service_for(request, model if isinstance(model, str) else None)
        if service.generation.gate.places.full:  # else there is time until its places are taken
            places = count_places(value, prompts)
            places = places if most is None else max(1, min(most, places))
            service.generation.gate.check_body(request.scope[EXCHANGE], model, places)

    def changes_for(self, request: Request, name: str) -> tuple[LiveChanges, str]:
        """What changes the adapters of the base that `name` is on, else of the default one; and `name` there.

        `base:adapter` says which base. Raises `ApiError` for a base that is not served.
        """
        service = self.base_of(name)
        request.scope[EXCHANGE].base = service.runtime.name
        changes = service.changes
        assert changes is not None, "the endpoints that change adapters are there only with a registry"
        return changes, split_base(name)[1]

    async def changes_for_new(self, request: Request, name: str, path: str) -> tuple[LiveChanges, str]:
        """The same for an adapter in the folder `path`, which a new `name` puts on the only base it fits."""
        known = split_base(name)[0] is not None or self.bases.names().index_of(name) is not None
        if known or not self.bases.several:
            return self.changes_for(request, name)
        places = [one for one in self.services if one.changes and await one.changes.registry.takes(path)]
        base = f"{places[0].runtime.name}:" if len(places) == 1 else ""
        return self.changes_for(request, base + name)

    def base_of(self, name: str) -> BaseService:
        """The base that `base:adapter` or `adapter` is on, else the default one.

        Raises `ApiError` for a base that is not served.
        """
        base, _ = split_base(name)
        if base is None:
            return self.service_named(name)
        index = self.bases.names().named_base(base)
        if index is None:
            message = f"{format_value(base)} is not a base that is served here; see GET /v1/models."
            raise bad_field("name", message, code="base_not_found", status=404)
        return self.services[index]

    def default_length(self, service: BaseService) -> int | None:
        """Length of an answer whose request names none; None: what is left of the context."""
        return self.settings.default_max_tokens or service.defaults.max_new_tokens


@dataclass(frozen=True, slots=True)
class EveryName:
    """The names of all bases and their adapters."""

    services: Sequence[BaseService]

    def knows(self, name: str) -> bool:
        """True for a base's name and an adapter's."""
        return any(service.runtime.knows(name) for service in self.services)

    def is_base(self, name: str) -> bool:
        """True for a base's name, and for `base`."""
        return any(service.runtime.served.is_base(name) for service in self.services)

    def full_name(self, name: str) -> str:
        """One spelling for all that mean the same adapter."""
        _, rest = split_base(name)
        for service in self.services:
            if service.runtime.knows(name) and service.runtime.served.is_adapter(rest):
                return f"{service.runtime.name}:{service.runtime.served.resolve(rest).full_name}"
        return name.strip().lower()


def asker_of(request: Request) -> str:
    """Who asks, where askers take turns: a key, or without keys an address."""
    exchange: Exchange = request.scope[EXCHANGE]
    return exchange.tenant or (request.client.host if request.client is not None else "")


def reply(value: Any) -> Response:
    """`value` as a JSON response."""
    return Response(msgspec.json.encode(value), media_type="application/json")


def large_reply(
    render: Callable[[], Iterator[bytes]], answers: Sequence[Answer], aside: OneThread
) -> Response:
    """What `render` writes of `answers`, which it is done with; not on the event loop if it is much."""
    if sum([answer.scored for answer in answers]) <= SCORED:
        return Response(b"".join(render()), media_type="application/json")

    def pieces() -> Iterator[bytes]:
        yield from render()
        release(answers)

    return LargeReply(pieces(), aside)


def question(
    request: Request, model: str, turns: tuple[str, ...], opening: tuple[str, ...] = ()
) -> RouteQuery:
    """What routing has to decide for `request`; `opening` as `RouteQuery` has it."""
    exchange: Exchange = request.scope[EXCHANGE]
    return RouteQuery(
        header=exchange.headers.get(b"x-oneseek-adapter"),
        model=model,
        turns=turns,
        accept_language=exchange.headers.get(b"accept-language"),
        opening=opening,
    )


def draft_receipt(
    asked: bool, exchange: Exchange, service: BaseService, resolution: Resolution
) -> ReceiptDraft | None:
    """The receipt that goes into the body, if it was asked for."""
    runtime = service.runtime
    return ReceiptDraft(exchange, resolution, runtime.name, runtime.info.base_digest) if asked else None


def envelope(answer_id: str, kind: str, resolution: Resolution) -> dict[str, Any]:
    """What every answer and every chunk of a stream begins with."""
    return {
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": resolution.name,
        "system_fingerprint": resolution.fingerprint,
    }
