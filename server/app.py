"""The composition root: routes and layers in one visible list, and what starts and stops with them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.registry import Registry
from routing.route import Router
from server.api.chat import Chat
from server.api.completions import Completions
from server.api.connection import BoundedProtocol
from server.api.context import Context
from server.api.embeddings import Embeddings
from server.api.errors import reply_for
from server.api.exchange import exchange_of
from server.api.legacy import Legacy
from server.api.models import Models
from server.api.responses import Responses
from server.api.scrape import EngineCollector, VllmCollector
from server.api.status import Status
from server.api.tokens import Tokens
from server.defaults import SamplingDefaults
from server.engines.base import Engine
from server.generation import Generation
from server.metrics import Metrics
from server.middleware import ApiKeys, Errors, HeaderLimits, Receipts
from server.settings import Settings
from server.tokens import Tokenizer
from server.turns import Turns
from server.watch import Follow, Watch

Endpoint = Callable[[Request], Awaitable[Response]]


def create_app(
    settings: Settings,
    engine: Engine,
    registry: Registry,
    router: Router,
    tokenizer: Tokenizer,
    base_name: str,
    metrics: Metrics,
    defaults: SamplingDefaults | None = None,
    follow: Follow | None = None,
) -> Starlette:
    """The whole server around an engine that has not started; its lifespan starts and closes the engine.

    With `follow`, it also follows the registry on disk.
    """
    generation = Generation(
        engine=engine,
        registry=registry,
        router=router,
        tokenizer=tokenizer,
        base_name=base_name,
        metrics=metrics,
    )
    context = Context(generation, settings, defaults or SamplingDefaults())
    app = Starlette(
        routes=_routes(context),
        middleware=[
            Middleware(Receipts, metrics=metrics),
            Middleware(Turns),
            Middleware(Errors, metrics=metrics),
            Middleware(HeaderLimits),
            Middleware(ApiKeys, keys=settings.api_keys),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=_lifespan(generation, follow),
    )
    # A redirect would be built from the client's Host header.
    app.router.redirect_slashes = False
    return app


def _routes(context: Context) -> list[Route]:
    chat, completions, legacy = Chat(context), Completions(context), Legacy(context)
    models, tokens, status = Models(context), Tokens(context), Status(context)
    responses, embeddings = Responses(context), Embeddings(context)
    return [
        _route("POST", "/v1/chat/completions", chat.create),
        _route("POST", "/v1/completions", completions.create),
        _route("POST", "/v1/responses", responses.create),
        _route("GET", "/v1/responses/{id}", responses.stored),
        _route("DELETE", "/v1/responses/{id}", responses.stored),
        _route("POST", "/v1/embeddings", embeddings.create),
        _route("GET", "/v1/models", models.all),
        _route("GET", "/v1/models/{id:path}", models.one),
        _route("POST", "/tokenize", tokens.tokenize),
        _route("POST", "/detokenize", tokens.detokenize),
        _route("POST", "/inference/oneseek", legacy.oneseek),
        _route("POST", "/inference/mistral", legacy.deprecated),
        _route("POST", "/inference/llama", legacy.deprecated),
        _route("GET", "/health", status.health),
        _route("GET", "/live", status.live),
        _route("GET", "/ready", status.ready),
        _route("GET", "/version", status.version),
        _route("GET", "/metrics", status.metrics),
    ]


def _route(method: str, path: str, endpoint: Endpoint) -> Route:
    label = path.replace(":path", "")

    async def named(request: Request) -> Response:
        exchange_of(request.scope).endpoint = label
        return await endpoint(request)

    return Route(path, named, methods=[method])


async def _http_error(_request: Request, error: Exception) -> Response:
    reply = reply_for(error)
    return Response(reply.body(), reply.status, headers=dict(reply.headers), media_type="application/json")


def _lifespan(
    generation: Generation, follow: Follow | None
) -> Callable[[Starlette], AbstractAsyncContextManager[None]]:
    engine, metrics, registry = generation.engine, generation.metrics, generation.registry

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncGenerator[None]:
        await engine.start()
        try:
            metrics.runs(engine.info)
            metrics.registry.register(EngineCollector(engine, generation.base_name, registry.adapters))
            if engine.info.name == "vllm":
                metrics.registry.register(VllmCollector())
            await generation.residency.load_all([registry.active(alias) for alias in registry.aliases()])
            async with _following(generation, follow):
                yield
        finally:
            generation.grammars.close()
            await engine.close()

    return lifespan


@asynccontextmanager
async def _following(generation: Generation, follow: Follow | None) -> AsyncGenerator[None]:
    if follow is None:
        yield
        return
    task = asyncio.create_task(Watch(generation, follow).run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


def uvicorn_config(app: Starlette, settings: Settings) -> uvicorn.Config:
    """How uvicorn serves `app`: bounded heads, no server header, and time for running requests at the end."""
    return uvicorn.Config(
        app,
        host=settings.host,
        port=settings.port,
        http=BoundedProtocol,
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        # Our own lines say what uvicorn's say at "info".
        log_level="warning" if settings.log_level == "info" else settings.log_level,
        server_header=False,
        proxy_headers=False,
        timeout_keep_alive=75,
        timeout_graceful_shutdown=math.ceil(settings.drain_seconds),
    )
