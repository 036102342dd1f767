"""Which adapters are resident in the engine, and bringing in those that a request names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdapterUnavailableError,
    EngineDeadError,
    EngineError,
)
from server.metrics.metrics import Metrics

PATIENCE = 30.0
"""Seconds that a request waits for an adapter."""

log = logging.getLogger("oneseek.residency")


class Residency:
    """Loads adapters into the engine, each once however many requests wait for it."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._loading: dict[str, asyncio.Task[None]] = {}
        self._unloading: set[asyncio.Task[None]] = set()

    async def load_all(self, adapters: Iterable[Adapter]) -> None:
        """Make `adapters` resident as far as the engine takes them; what it refuses is logged by name."""
        for adapter in adapters:
            with suppress(AdapterNotLoadedError, AdapterRefusedError):
                await self.ensure(adapter)

    async def ensure(self, adapter: Adapter) -> None:
        """Return once `adapter` is resident.

        Raises `AdapterUnavailableError` if it has a `problem`, `AdapterRefusedError` where the engine refuses
        it, and `AdapterNotLoadedError` where that takes
        longer than `PATIENCE`, as it can while requests hold it that is to be unloaded; the load goes on.
        """
        if adapter.problem is not None:
            # First: whatever is resident under a digest, nothing stands in for a damaged version.
            raise AdapterUnavailableError(f"{adapter.full_name}: {adapter.problem}")
        if adapter.digest in self._engine.residents.open:
            return
        task = self._loading.get(adapter.digest)
        if task is None:
            task = asyncio.create_task(self._load(adapter))
            self._loading[adapter.digest] = task
            task.add_done_callback(lambda done: self._forget_task(adapter.digest, done))
        # A client that goes away does not end the load: others wait for it, or will when they ask again.
        done, _ = await asyncio.wait([task], timeout=PATIENCE)
        if not done:
            raise AdapterNotLoadedError(f"adapter {adapter.full_name} is not loaded yet")
        task.result()

    def unload_later(self, adapter: Adapter) -> None:
        """Have the engine drop it once no request uses it."""

        async def unload() -> None:
            with suppress(EngineError):
                await self._engine.unload(adapter.digest)

        task = asyncio.create_task(unload())
        self._unloading.add(task)
        task.add_done_callback(self._unloading.discard)

    def close(self) -> None:
        """Wait for nothing that is yet to be dropped."""
        for task in self._unloading:
            task.cancel()

    def _forget_task(self, digest: str, task: asyncio.Task[None]) -> None:
        del self._loading[digest]
        if not task.cancelled():
            task.exception()  # seen, even where all who waited have gone

    async def _load(self, adapter: Adapter) -> None:
        started = time.perf_counter()
        outcome = "failed"
        with self._metrics.using(adapter):
            try:
                await self._engine.load(adapter)
                outcome = "ok"
            except AdapterRefusedError as error:
                outcome = "refused"
                log.warning("adapter %s is not served: %s", adapter.full_name, error)
                raise
            except EngineDeadError:
                outcome = "engine_dead"
                raise
            except asyncio.CancelledError:
                outcome = "cancelled"
                raise
            finally:
                self._metrics.record_load(adapter.alias, outcome, time.perf_counter() - started)
