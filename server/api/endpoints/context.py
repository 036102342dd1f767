"""Defines the context that every endpoint gets (services, settings, metrics), with shared helpers."""

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
    """The running server as the endpoints see it: its services, settings and metrics."""

    services: Sequence[BaseService]
    """One service for each base model, with the default base first."""
    settings: Settings
    metrics: Metrics
    one_thread: OneThread
    """The worker thread for work whose time grows with a request's size. All services share it."""
    externals: ExternalModels = NO_EXTERNAL_MODELS
    """Clients of external OpenAI-compatible services, which can answer besides this server's bases."""
    routing: LanguageRouting | None = None
    """Chooses a base and adapter by language, over all bases. None: the default base's own router chooses."""
    started: float = field(default_factory=time.time)
    """Time at which the server started, in Unix seconds; also the `created` of every model."""
    began: float = field(default_factory=time.monotonic)
    """Time at which the server started, in seconds of the monotonic clock, which is never adjusted."""
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
        """Read a request's body and parse it as a JSON object.

        Each field must be within its limit in `bounds`. `limit` is the body's maximum size in bytes; default:
        the setting `max_body`.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        most = self.settings.max_body if limit is None else limit
        body = await read_body(request.scope, request.receive, most, types)
        exchange.body_bytes = len(body)
        if exchange.content is not None:
            exchange.content.body = body
        return await self.aside(request, lambda: parse_body(body, bounds))

    async def read_question(self, request: Request, bounds: Mapping[str, FieldBound]) -> dict[str, Any]:
        """Read a request's body, and set `model` to the adapter that `model`, `lora_path` or `adapter_id`
        names.
        """
        value = await self.read(request, bounds)
        return await self.aside(request, lambda: name_adapter(value, EveryName(self.services)))

    def unknown_fields(self, request: Request) -> UnknownFields:
        """Return the handler of a request's unknown fields, which ignores or refuses them."""
        exchange: Exchange = request.scope[EXCHANGE]
        return UnknownFields(exchange.receipt, strict=self.settings.strict_fields)

    async def aside(self, request: Request, work: Callable[[], WorkResult]) -> WorkResult:
        """Run `work`, whose time grows with the body's size: in a worker thread if the body is large, else on
        the event loop.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        return work() if exchange.body_bytes <= SMALL else await self.one_thread.run(work)

    def service_for(self, request: Request, model: str | None = None) -> BaseService:
        """Return the base that knows the adapter in the header `X-OneSeek-Adapter`, else in `model`; else the
        default base.
        """
        exchange: Exchange = request.scope[EXCHANGE]
        return self.service_named(exchange.headers.get(b"x-oneseek-adapter"), model)

    def service_named(self, *names: str | None) -> BaseService:
        """Return the service of the base that serves the first known name in `names`; if no name is known,
        that of the default base.
        """
        return self.bases.named(*names)

    async def choose(
        self,
        request: Request,
        asked: RouteQuery,
        task: Task = "generate",
        within: BaseService | None = None,
    ) -> tuple[BaseService, Route | None]:
        """Choose the base that answers. Return its service, and the route (the chosen adapter) to pass to
        `Generation.choose`. See `Bases.choose`.
        """
        return await self.bases.choose(request.scope[EXCHANGE], asked, task, within)

    def check_headers(self, exchange: Exchange) -> None:
        """Raise `EngineBusyError` if the request's headers alone show that the queue has no place for the
        request.
        """
        header = exchange.headers.get(b"x-oneseek-adapter")
        if header is not None or len(self.services) == 1:
            self.service_named(header).generation.gate.check_headers(exchange)

    def check_body(
        self, request: Request, value: Mapping[str, object], prompts: str = "", most: int | None = None
    ) -> None:
        """Raise `EngineBusyError` if the queue is full for the adapter that the body names. The body is not
        validated yet.

        `prompts` is the name of the field that may hold several prompts, of which at most `most` run at once.
        """
        model = value.get("model")
        service = self.service_for(request, model if isinstance(model, str) else None)
        if service.generation.gate.places.full:  # else there is time until its places are taken
            places = count_places(value, prompts)
            places = places if most is None else max(1, min(most, places))
            service.generation.gate.check_body(request.scope[EXCHANGE], model, places)

    def changes_for(self, request: Request, name: str) -> tuple[LiveChanges, str]:
        """Return the object that changes a base's adapters, and `name` without its base.

        The base is the one in `base:adapter`, else the one that has the adapter, else the default base.
        Raises `ApiError` for a base that is not served.
        """
        service = self.base_of(name)
        request.scope[EXCHANGE].base = service.runtime.name
        changes = service.changes
        assert changes is not None, (
            "a base without a registry of adapters has no endpoints that change adapters"
        )
        return changes, split_base(name)[1]

    async def changes_for_new(self, request: Request, name: str, path: str) -> tuple[LiveChanges, str]:
        """Return the object that changes a base's adapters, for a new adapter from `path`, and `name` without
        its base.

        If `name` has no base, the adapter goes to the only base that it fits, else to the default base.
        """
        known = split_base(name)[0] is not None or self.bases.names().index_of(name) is not None
        if known or not self.bases.several:
            return self.changes_for(request, name)
        places = [one for one in self.services if one.changes and await one.changes.registry.takes(path)]
        base = f"{places[0].runtime.name}:" if len(places) == 1 else ""
        return self.changes_for(request, base + name)

    def base_of(self, name: str) -> BaseService:
        """Return the base named in `base:adapter`, else the base that has the adapter, else the default base.

        Raises `ApiError` for a base that is not served.
        """
        base, _ = split_base(name)
        if base is None:
            return self.service_named(name)
        index = self.bases.names().named_base(base)
        if index is None:
            raise bad_field(
                "name",
                f"The base {format_value(base)} is not served here; GET /v1/models lists the bases.",
                code="base_not_found",
                status=404,
            )
        return self.services[index]

    def default_length(self, service: BaseService) -> int | None:
        """Return the default length of an answer in tokens; None: as many tokens as the context has left."""
        return self.settings.default_max_tokens or service.defaults.max_new_tokens


@dataclass(frozen=True, slots=True)
class EveryName:
    """Looks up the names of all bases and their adapters."""

    services: Sequence[BaseService]

    def knows(self, name: str) -> bool:
        """Return True if `name` is the name of a base or an adapter."""
        return any(service.runtime.knows(name) for service in self.services)

    def is_base(self, name: str) -> bool:
        """Return True if `name` is the name of a base, or the word `base`."""
        return any(service.runtime.served.is_base(name) for service in self.services)

    def full_name(self, name: str) -> str:
        """Return an adapter's full name (`base:alias@version`); for an unknown name, the name in
        lower case.
        """
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
    """Return the response that `render` encodes. With many log probabilities, encode it in a worker thread
    and then free `answers`.
    """
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
    """Return what the router needs to know about `request` to choose an adapter. For `opening` and `system`,
    see `RouteQuery`.
    """
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
    """Return the draft of the answer's receipt (which adapter answered, and why); None if the request did not
    ask for a receipt.
    """
    runtime = service.runtime
    return ReceiptDraft(exchange, resolution, runtime.name, runtime.info.base_digest) if asked else None


def envelope(answer_id: str, kind: str, resolution: Resolution) -> dict[str, Any]:
    """Return the fields with which every answer and every stream chunk begins: id, object, created, model and
    system_fingerprint.
    """
    return {
        "id": answer_id,
        "object": kind,
        "created": int(time.time()),
        "model": resolution.name,
        "system_fingerprint": resolution.fingerprint,
    }
