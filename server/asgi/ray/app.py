"""OneSeek on Ray Serve: one ingress with the whole HTTP API, and replicas with one engine each.

There is only one ingress, because queue limits, aliases, rollouts and the ledger must be decided in one
place. `serve run server.asgi.ray.app:build` or `deploy/ray/serve.yaml` starts the application.
"""

# Ray is not installed where types are checked, so everything of its is unknown there.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import AsyncGenerator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ray import serve
from ray.serve.config import RequestRouterConfig
from ray.serve.handle import DeploymentHandle

from server.asgi.compose import Narrator, compose
from server.asgi.ray.arguments import (
    Arguments,
    batch_size,
    engine_count,
    engine_resources,
    replica_queue,
    reserved_gpus,
)
from server.asgi.ray.headers import OneRequestId
from server.asgi.ray.host import EngineHost, open_host
from server.config.settings import Settings, resolve_settings
from server.engines.ray.calls import (
    Description,
    EngineCall,
    ReplicaCall,
    ReplicaLostError,
    ReplicaStatus,
    SentFailure,
)
from server.engines.ray.collector import ReplicaCollector
from server.engines.ray.engine import RemoteEngine
from server.engines.ray.handle import RayReplicas
from server.engines.ray.router import RankedRouter
from server.telemetry.records import TEXT

QUESTIONS = 16
"""Number of concurrent calls to a replica that are reserved for status reports and for loading adapters."""
HEALTH_SECONDS = 2.0
"""Seconds between Ray's health checks of a replica."""


class EngineReplica:
    """A replica of the engine: one of Ray's processes, with one engine in it."""

    async def __init__(self, config: str | None, gpus: float, queue: int) -> None:
        self._name = serve.get_replica_context().replica_id.unique_id
        settings = replace(_settings(config), max_queue=queue)
        self._host: EngineHost = await asyncio.to_thread(open_host, settings, self._name, gpus)
        await self._host.start()

    def check_health(self) -> None:
        """Raise `EngineDeadError` if the engine is dead, so that Ray replaces this replica."""
        self._host.check()

    async def describe(self) -> Description:
        """Return the engine's properties, which are the same for all replicas. See `ReplicaHost.describe`."""
        return self._host.describe()

    async def stream(self, call: EngineCall) -> AsyncGenerator[bytes, None]:
        """Run a generation, and yield its answer as encoded frames. See `ReplicaHost.stream`."""
        async for frame in self._host.stream(call):
            yield frame

    async def embed(self, call: EngineCall) -> tuple[float, ...] | SentFailure:
        """Return the embedding of a text. See `ReplicaHost.embed`."""
        return await self._host.embed(call)

    async def status(self, call: ReplicaCall) -> ReplicaStatus:
        """Return this replica's state. See `ReplicaHost.status`."""
        self._check_meant(call)
        return self._host.status()

    async def load(self, call: ReplicaCall) -> bool | SentFailure:
        """Load an adapter into this replica. See `ReplicaHost.load`."""
        self._check_meant(call)
        return await self._host.load(call)

    async def unload(self, call: ReplicaCall) -> None:
        """Unload an adapter from this replica. See `ReplicaHost.unload`."""
        self._check_meant(call)
        await self._host.unload(call)

    def _check_meant(self, call: ReplicaCall) -> None:
        if call.replica != self._name:
            raise ReplicaLostError(
                f"replica {self._name} refuses a call that Ray passed on to it, because the call is meant "
                f"for replica {call.replica}, which no longer exists"
            )


@serve.ingress()
class Ingress:
    """The HTTP API as a Ray deployment: parses, checks and routes requests, and sends them to replicas."""

    async def __init__(self, config: str | None, most_replicas: int, engine: DeploymentHandle) -> None:
        settings = _settings(config)
        replicas = RayReplicas(engine)
        described = await replicas.describe()
        remote = RemoteEngine(replicas, described, most_replicas=most_replicas, max_queue=settings.max_queue)
        opened = remote, (ReplicaCollector(remote),)
        narrator = Narrator(sys.stderr)
        for warning in settings.warnings:
            narrator(f"warning: {warning}")
        self._app, _ = await asyncio.to_thread(compose, settings, narrator, remote=opened)

    def __serve_build_asgi_app__(self) -> OneRequestId:
        """Return the ASGI application. Ray Serve calls this, and runs the application with its lifespan."""
        return OneRequestId(self._app)


def build(arguments: Mapping[str, Any] | None = None) -> serve.Application:
    """Build the application for `serve run` and `serve deploy`. Raises `SettingsError`.

    Each node reads the settings from its own file and environment, so that Ray stores no keys.
    """
    given = Arguments.parse(arguments or {})
    settings = _settings(given.config)
    resources = engine_resources(settings, given)
    gpus = reserved_gpus(resources)
    at_once = batch_size(settings, given, gpus)
    queue = replica_queue(settings.max_queue, at_once, given.max_replicas)
    options: dict[str, Any] = {
        # What waits is ordered by the replica's engine, key by key, and not by Ray in the order of arrival.
        "max_ongoing_requests": at_once + queue + QUESTIONS,
        "health_check_period_s": HEALTH_SECONDS,
        "graceful_shutdown_timeout_s": settings.drain_seconds,
        # The ingress asks each replica how it is, twice a second.
        "logging_config": {"enable_access_log": False},
        "request_router_config": RequestRouterConfig(request_router_class=RankedRouter),
        **engine_count(given, at_once),
        **resources,
    }
    replica = serve.deployment(EngineReplica).options(name="engine", **options)
    engine = replica.bind(given.config, gpus, queue)
    ingress = serve.deployment(Ingress).options(
        name="ingress",
        num_replicas=1,
        max_ongoing_requests=settings.max_connections,
        health_check_period_s=HEALTH_SECONDS,
        graceful_shutdown_timeout_s=settings.drain_seconds,
        ray_actor_options={"num_cpus": 1},
    )
    return ingress.bind(given.config, given.max_replicas, engine)


def _settings(config: str | None) -> Settings:
    settings = resolve_settings(config=None if config is None else Path(config)).settings
    _log(settings.log_level)
    return settings


def _log(level: str) -> None:
    """Send this server's log lines to standard error, however Ray has configured the root logger."""
    own = logging.getLogger("oneseek")
    own.setLevel(level.upper())
    if not own.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter(TEXT))
        own.addHandler(handler)
        own.propagate = False
