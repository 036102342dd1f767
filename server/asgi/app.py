"""The composition root: routes and layers in one visible list, and what starts and stops with them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from adapters.ledger import Ledger
from adapters.registry.served import Registry
from adapters.registry.store import Store
from routing.route import Router
from server.api.endpoints.adapters import Admin
from server.api.endpoints.audit import Changes
from server.api.endpoints.chat import Chat
from server.api.endpoints.completions import Completions
from server.api.endpoints.context import Context
from server.api.endpoints.embeddings import Embeddings
from server.api.endpoints.legacy import Legacy
from server.api.endpoints.loras import Loras
from server.api.endpoints.models import Models
from server.api.endpoints.responses import Responses
from server.api.endpoints.rollout import Rollout
from server.api.endpoints.status import Status
from server.api.endpoints.tokenize import Tokens
from server.api.rendering.error_replies import reply_for
from server.asgi.connection import BoundedProtocol
from server.asgi.middleware import ApiKeys, Errors, HeaderLimits, Receipts
from server.asgi.turns import Turns
from server.config.settings import Settings
from server.engines.base import Engine
from server.exchange import EXCHANGE
from server.live.follower import Follow, Watch
from server.live.inventory import Inventory
from server.live.loading import Loading
from server.live.registry_changes import Administration
from server.live.rollout_changes import Dividing
from server.live.roots import Roots
from server.metrics.collectors import EngineCollector, VllmCollector
from server.metrics.metrics import Metrics
from server.serving.generation import Generation
from server.serving.sampling_defaults import SamplingDefaults
from server.text.tokenizer import Tokenizer

DEFAULT_BATCH = 32
"""Requests in one batch, where the settings do not say; vLLM takes more on large GPUs."""
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

    With `follow`, it also follows the registry on disk, and has the endpoints that change adapters.
    """
    store = Store(follow.home, Ledger.open(follow.home / "ledger")) if follow is not None else None
    generation = Generation(
        engine=engine,
        registry=registry,
        router=router,
        tokenizer=tokenizer,
        base_name=base_name,
        metrics=metrics,
        rollout=settings.rollout,
        store=store,
        batch=settings.max_num_seqs or DEFAULT_BATCH,
    )
    context = Context(generation, settings, defaults or SamplingDefaults())
    watch = Watch(generation, follow) if follow is not None else None
    app = Starlette(
        routes=[*_routes(context), *(_admin_routes(context, watch, store) if watch and store else ())],
        middleware=[
            Middleware(Receipts, metrics=metrics),
            Middleware(Turns),
            Middleware(Errors, metrics=metrics),
            Middleware(HeaderLimits),
            Middleware(ApiKeys, keys=settings.api_keys, admin_keys=settings.admin_keys),
        ],
        exception_handlers={HTTPException: _http_error},
        lifespan=_lifespan(generation, watch),
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


def _admin_routes(context: Context, watch: Watch, store: Store) -> list[Route]:
    generation, settings, follow = context.generation, context.settings, watch.follow
    roots = Roots([*map(Path, settings.adapter_roots), follow.home / "registry"])
    changes, limit = Changes(generation.metrics), settings.max_body
    administration = Administration(generation, watch, store, roots)
    inventory = Inventory(generation, watch, administration)
    loras = Loras(Loading(generation, watch, roots), changes, limit)
    admin = Admin(administration, inventory, changes, limit)
    rollout = Rollout(Dividing(generation, watch, administration), changes, limit)
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
        _route("GET", "/admin/adapters/{name}/rollout", rollout.told),
    ]


def _route(method: str, path: str, endpoint: Endpoint) -> Route:
    label = path.replace(":path", "")

    async def named(request: Request) -> Response:
        request.scope[EXCHANGE].endpoint = label
        return await endpoint(request)

    return Route(path, named, methods=[method])


async def _http_error(_request: Request, error: Exception) -> Response:
    reply = reply_for(error)
    return Response(reply.body(), reply.status, headers=dict(reply.headers), media_type="application/json")


def _lifespan(
    generation: Generation, watch: Watch | None
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
            if watch is not None:
                await generation.rollouts.start(watch.follow.home)
            async with _rolling_out(generation), _following(watch):
                yield
        finally:
            generation.grammars.close()
            await engine.close()

    return lifespan


@asynccontextmanager
async def _following(watch: Watch | None) -> AsyncGenerator[None]:
    if watch is None:
        yield
        return
    task = asyncio.create_task(watch.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])


@asynccontextmanager
async def _rolling_out(generation: Generation) -> AsyncGenerator[None]:
    task = asyncio.create_task(generation.rollouts.run())
    try:
        yield
    finally:
        task.cancel()
        await asyncio.wait([task])
        await generation.shadows.close()
        generation.residency.close()


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
