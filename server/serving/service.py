"""Builds the service of one base model from its runtime, and starts and stops the service with the server."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from prometheus_client.registry import Collector

from adapters.ledger import Ledger
from adapters.registry.registry import Registry
from adapters.remote.url import URLPrefixes
from server.config.settings import Settings
from server.live.catalogue import versions_outside
from server.live.configured import fetch_limits
from server.live.fetching import AdapterFetching
from server.live.follow_options import FollowOptions
from server.live.follower import RegistryFollower
from server.live.inventory import Inventory
from server.live.loading import LoraLoading
from server.live.registry_changes import RegistryChanges
from server.live.roots import Roots
from server.live.runtime import Runtime
from server.live.url_loading import URLLoading
from server.metrics.collectors import EngineCollector
from server.rollout.changes import RolloutChanges
from server.rollout.rollouts import Rollouts
from server.rollout.shadows import Shadows
from server.serving.generation import Generation
from server.serving.one_thread import OneThread
from server.serving.sampling_defaults import SamplingDefaults

DEFAULT_BATCH = 32
"""Assumed batch size if `max_num_seqs` is not set; vLLM uses more on large GPUs."""


@dataclass(frozen=True, slots=True)
class LiveChanges:
    """The objects that change a base's adapters at runtime, for the admin endpoints."""

    follower: RegistryFollower
    loras: LoraLoading
    urls: URLLoading
    registry: RegistryChanges
    rollouts: RolloutChanges
    inventory: Inventory


@dataclass(frozen=True, slots=True, kw_only=True)
class BaseService:
    """The parts that serve one base: its runtime, its rollouts and its generation."""

    runtime: Runtime
    rollouts: Rollouts
    shadows: Shadows
    generation: Generation
    defaults: SamplingDefaults
    changes: LiveChanges | None
    """The objects that change adapters; None if the server does not follow a registry on disk."""
    collectors: Sequence[Collector] = ()
    """Collectors of the engine's own metrics, exported once the engine has started."""

    @asynccontextmanager
    async def run(self) -> AsyncGenerator[None]:
        """Start the engine, load the adapters with priority and follow the registry while the `with` block
        runs; then stop everything.
        """
        runtime = self.runtime
        engine, metrics, served = runtime.engine, runtime.metrics, runtime.served
        await engine.start()
        try:
            metrics.runs(engine.info)
            kept = runtime.residency.priorities.kept
            metrics.engines.add(EngineCollector(engine, runtime.name, served, kept, metrics.shown.uses))
            for collector in self.collectors:
                metrics.engines.add(collector)
            await runtime.residency.load_first()
            async with self._in_background():
                yield
        finally:
            self.generation.grammars.close()
            await engine.close()

    @asynccontextmanager
    async def _in_background(self) -> AsyncGenerator[None]:
        if self.changes is not None:
            await self.rollouts.start(self.changes.follower.options.home)
        tasks = [asyncio.create_task(self.rollouts.run())]
        if self.changes is not None:
            tasks.append(asyncio.create_task(self.changes.follower.run()))
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.wait(tasks)
            await self.shadows.close()
            await self.rollouts.close()
            self.runtime.residency.close()


def open_service(
    settings: Settings,
    runtime: Runtime,
    aside: OneThread,
    defaults: SamplingDefaults | None = None,
    follow: FollowOptions | None = None,
    collectors: Sequence[Collector] = (),
) -> BaseService:
    """Build the service of `runtime`, whose engine has not started.

    `aside` runs slow work in the process's worker thread. With `follow`, the service follows the registry on
    disk, and adapters can be changed over HTTP.
    """
    registry: Registry | None = None
    if follow is not None:
        outside = versions_outside(runtime.served.adapters(), runtime.served.base_digest)
        registry = Registry(follow.home, Ledger.open(follow.home / "ledger"), lambda: outside)
    rollouts = Rollouts(runtime, settings.rollout, registry)
    shadows = Shadows(runtime.engine, runtime.metrics, (settings.max_num_seqs or DEFAULT_BATCH) // 2)
    changes: LiveChanges | None = None
    if follow is not None and registry is not None:
        changes = _open_changes(settings, runtime, rollouts, follow, registry)
    return BaseService(
        runtime=runtime,
        rollouts=rollouts,
        shadows=shadows,
        generation=Generation(runtime, rollouts, shadows, aside),
        defaults=defaults or SamplingDefaults(),
        changes=changes,
        collectors=collectors,
    )


def _open_changes(
    settings: Settings, runtime: Runtime, rollouts: Rollouts, follow: FollowOptions, registry: Registry
) -> LiveChanges:
    roots = Roots([*map(Path, settings.adapter_roots), follow.home / "registry"])
    follower = RegistryFollower(runtime, follow, rollouts)
    prefixes = URLPrefixes.parse(settings.adapter_urls)
    fetching = AdapterFetching(prefixes, fetch_limits(settings), follow.home)
    changes = RegistryChanges(runtime, follower, registry, roots, fetching)
    return LiveChanges(
        follower=follower,
        loras=LoraLoading(runtime, follower, roots),
        urls=URLLoading(runtime.served, follower, changes),
        registry=changes,
        rollouts=RolloutChanges(runtime, rollouts, follower, changes),
        inventory=Inventory(runtime, follower, changes),
    )
