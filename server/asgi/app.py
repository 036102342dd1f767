"""Builds the ASGI application: its routes and middleware, and everything that starts and stops with it."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable, Coroutine, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from functools import partial
from typing import Any, cast

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from server.api.endpoints.adapters import Adapters
from server.api.endpoints.admin.adapters import Admin
from server.api.endpoints.admin.audit import AuditLog
from server.api.endpoints.admin.loras import Loras
from server.api.endpoints.admin.rollout import Rollout
from server.api.endpoints.chat import Chat
from server.api.endpoints.completions import Completions
from server.api.endpoints.context import Context
from server.api.endpoints.embeddings import Embeddings
from server.api.endpoints.invocations import Invocations
from server.api.endpoints.legacy import Legacy
from server.api.endpoints.models import Models
from server.api.endpoints.multi_model import MultiModel
from server.api.endpoints.recent import Recent
from server.api.endpoints.responses import Responses
from server.api.endpoints.status import Status
from server.api.endpoints.tokenize import Tokenize
from server.api.openapi.replies import Documents
from server.api.rendering.error_replies import reply_for
from server.asgi.browsers.cors import CrossOrigin, Preflights
from server.asgi.browsers.hosts import OwnPages
from server.asgi.cancellation import Cancellation
from server.asgi.gate import Gates
from server.asgi.http.protocol import BoundedProtocol
from server.asgi.http.wire import Wire
from server.asgi.middleware import ApiKeys, Errors, HeaderLimits, Receipts
from server.asgi.paths import TrailingSlash
from server.asgi.refusals import Refusals
from server.asgi.turns import Turns
from server.config.environment import process_environment
from server.config.hosts import AllowedHosts, parse_proxies
from server.config.origins import CorsOrigins
from server.config.settings import Settings
from server.exchange import EXCHANGE
from server.live.bases.languages import LanguageRouting
from server.metrics.ledger import LedgerWatch
from server.metrics.metrics import Metrics
from server.metrics.samples import SampledBase, Samples
from server.serving.one_thread import OneThread
from server.serving.service import BaseService
from server.serving.voices.external import ExternalModels, open_external_models
from server.telemetry.observer import RequestObserver
from server.web.files import Page

Handler = Callable[[Request], Awaitable[Response]]


def create_app(
    settings: Settings,
    services: Sequence[BaseService],
    metrics: Metrics,
    aside: OneThread,
    routing: LanguageRouting | None = None,
    observers: Sequence[RequestObserver] = (),
) -> Starlette:
    """Build the ASGI application for `services` (one for each base), which its lifespan starts and stops.

    `aside` is the worker thread that the services share. `routing` chooses among the languages of all bases.
    `observers` are called for every request. If a service follows the registry on disk, the application also
    has the endpoints that change adapters.
    """
    externals = open_external_models(settings.external, process_environment())
    context = Context(tuple(services), settings, metrics, aside, externals, routing)
    origins = CorsOrigins.parse(settings.cors_origins)
    changeable = any(service.changes is not None for service in services)
    samples = Samples([_sampled(service) for service in services])
    app = Starlette(
        routes=[
            *_routes(context, Documents(changeable=changeable), Recent(samples)),
            *_page_routes(Page()),
            *(_admin_routes(context) if changeable else ()),
        ],
        middleware=[
            Middleware(TrailingSlash),
            Middleware(Receipts, metrics=metrics, observers=observers),
            *([Middleware(CrossOrigin, origins=origins)] if origins else []),
            Middleware(Errors, metrics=metrics),
            Middleware(Refusals),
            Middleware(HeaderLimits),
            Middleware(
                OwnPages, hosts=AllowedHosts.of(settings.host, settings.allowed_hosts), origins=origins
            ),
            *([Middleware(Preflights)] if origins else []),
            Middleware(
                ApiKeys,
                keys=settings.api_keys,
                admin_keys=settings.admin_keys,
                metrics_keys=settings.metrics_keys,
            ),
            Middleware(
                Gates,
                queues=[service.runtime.engine.places for service in services],
                check=context.check_headers,
            ),
            Middleware(Cancellation, limit=settings.request_timeout, metrics=metrics),
            Middleware(Turns),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=_lifespan(
            services, externals, observers, samples, _ledger_watch(services, settings, metrics)
        ),
    )
    # A redirect would be built from the client's Host header.
    app.router.redirect_slashes = False
    return app


def _sampled(service: BaseService) -> SampledBase:
    runtime = service.runtime
    return SampledBase(runtime.name, runtime.metrics, runtime.engine, runtime.served.adapters)


def _routes(context: Context, documents: Documents, recent: Recent) -> list[Route]:
    chat, completions, legacy = Chat(context), Completions(context), Legacy(context)
    models, tokens, status = Models(context), Tokenize(context), Status(context)
    responses, embeddings, several = Responses(context), Embeddings(context), MultiModel(context)
    adapters = Adapters(context)
    return [
        _route("POST", "/v1/chat/completions", chat.create),
        _route("POST", "/v1/completions", completions.create),
        _route("POST", "/v1/responses", responses.create),
        _route("GET", "/v1/responses/{id}", responses.stored),
        _route("DELETE", "/v1/responses/{id}", responses.stored),
        _route("POST", "/v1/embeddings", embeddings.create),
        _route("POST", "/api/oqt/multi-model-query", several.create),
        _route("GET", "/v1/models", models.all),
        _route("GET", "/v1/models/{id:path}", models.one),
        _route("GET", "/v1/adapters", adapters.all),
        _route("GET", "/v1/adapters/{name}", adapters.one),
        _route("POST", "/invocations", Invocations(chat, completions, embeddings, context).create),
        _route("POST", "/tokenize", tokens.tokenize),
        _route("POST", "/detokenize", tokens.detokenize),
        _route("POST", "/inference/oneseek", legacy.oneseek),
        _route("POST", "/inference/mistral", legacy.deprecated),
        _route("POST", "/inference/llama", legacy.deprecated),
        _route("GET", "/health", status.health),
        _route("GET", "/live", status.live),
        _route("GET", "/ready", status.ready),
        _route("GET", "/ping", status.ready),
        _route("POST", "/ping", status.ready),
        _route("GET", "/version", status.version),
        _route("GET", "/metrics", status.metrics),
        _route("GET", "/metrics/recent", recent.samples),
        _route("GET", "/openapi.json", documents.openapi),
        _route("GET", "/docs", documents.docs),
    ]


def _page_routes(page: Page) -> list[Route]:
    return [_route("GET", "/", page.index), _route("GET", "/page/{file:path}", page.file)]


def _admin_routes(context: Context) -> list[Route]:
    audit = AuditLog(context.metrics)
    loras, admin, rollout = Loras(context, audit), Admin(context, audit), Rollout(context, audit)
    return [
        _route("POST", "/v1/load_lora_adapter", loras.load),
        _route("POST", "/v1/unload_lora_adapter", loras.unload),
        _route("GET", "/admin/adapters", admin.all),
        _route("POST", "/admin/adapters", admin.add),
        _route("GET", "/admin/adapters/{name}", admin.one),
        _route("POST", "/admin/adapters/{name}/promote", admin.promote),
        _route("POST", "/admin/adapters/{name}/rollback", admin.rollback),
        _route("POST", "/admin/adapters/{name}/retire", admin.retire),
        _route("POST", "/admin/adapters/{name}/verify", admin.verify),
        _route("POST", "/admin/adapters/{name}/canary", rollout.canary),
        _route("POST", "/admin/adapters/{name}/shadow", rollout.shadow),
        _route("POST", "/admin/adapters/{name}/settle", rollout.settle),
        _route("GET", "/admin/adapters/{name}/rollout", rollout.describe),
    ]


def _route(method: str, path: str, endpoint: Handler) -> Route:
    label = path.replace(":path", "")

    async def named(request: Request) -> Response:
        request.scope[EXCHANGE].endpoint = label
        return await endpoint(request)

    return Route(path, named, methods=[method])


async def _http_error(_request: Request, error: Exception) -> Response:
    reply = reply_for(error)
    return Response(reply.body(), reply.status, headers=dict(reply.headers), media_type="application/json")


def _ledger_watch(
    services: Sequence[BaseService], settings: Settings, metrics: Metrics
) -> LedgerWatch | None:
    """Return the watcher that verifies the ledger of the followed registry; None if no service follows
    one.
    """
    for service in services:
        if service.changes is not None:
            home = service.changes.follower.options.home
            return LedgerWatch(home / "ledger", settings.ledger_public_key, metrics)
    return None


def _lifespan(
    services: Sequence[BaseService],
    externals: ExternalModels,
    observers: Sequence[RequestObserver],
    samples: Samples,
    ledger: LedgerWatch | None,
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        async with AsyncExitStack() as stack:
            for observer in observers:
                stack.push_async_callback(observer.close)
            stack.push_async_callback(externals.close)
            for service in services:
                await stack.enter_async_context(service.run())
            await stack.enter_async_context(_running(samples.run()))
            if ledger is not None:
                await stack.enter_async_context(ledger.run())
            yield

    return lifespan


@asynccontextmanager
async def _running(work: Coroutine[Any, Any, None]) -> AsyncGenerator[None]:
    """Run the coroutine `work` in the background until the `with` block ends, then cancel it."""
    task = asyncio.create_task(work)
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def uvicorn_config(app: Starlette, settings: Settings, wire: Wire | None = None) -> uvicorn.Config:
    """Return uvicorn's configuration for `app`: bounded connections, no Server header.

    `wire` is the state that all connections share. Default: made from the settings.
    """
    wire = wire or Wire(settings.max_connections, settings.body_memory)
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        # uvicorn calls this as it would call the class.
        http=cast("type[BoundedProtocol]", partial(BoundedProtocol, wire=wire)),
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        # Our own lines say what uvicorn's say at "info".
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        server_header=False,
        proxy_headers=bool(settings.trusted_proxies),
        forwarded_allow_ips=parse_proxies(settings.trusted_proxies),
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
