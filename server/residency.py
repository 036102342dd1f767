"""Which adapters are resident in the engine, and bringing in those that a request names."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterable
from contextlib import suppress

from adapters.manifest import Adapter
from server.engines.base import AdapterRefusedError, Engine
from server.metrics import Metrics

log = logging.getLogger("oneseek.residency")


class Residency:
    """Loads adapters into the engine, each once however many requests wait for it."""

    def __init__(self, engine: Engine, metrics: Metrics) -> None:
        self._engine = engine
        self._metrics = metrics
        self._loading: dict[str, asyncio.Task[None]] = {}

    async def load_all(self, adapters: Iterable[Adapter]) -> None:
        """Make `adapters` resident as far as the engine takes them; what it refuses is logged by name."""
        for adapter in adapters:
            with suppress(AdapterRefusedError):
                await self.ensure(adapter)

    async def ensure(self, adapter: Adapter) -> None:
        """Return once `adapter` is resident. Raises `AdapterRefusedError` where the engine refuses it."""
        if self._engine.state().resident.get(adapter.digest) == "device":
            return
        task = self._loading.get(adapter.digest)
        if task is None:
            task = asyncio.create_task(self._load(adapter))
            self._loading[adapter.digest] = task
            task.add_done_callback(lambda _: self._loading.pop(adapter.digest, None))
        # A client that goes away must not end the load that others wait for.
        await asyncio.shield(task)

    async def _load(self, adapter: Adapter) -> None:
        started = time.perf_counter()
        outcome = "refused"
        try:
            await self._engine.load(adapter)
            outcome = "ok"
        except AdapterRefusedError as error:
            log.warning("adapter %s is not served: %s", adapter.full_name, error)
            raise
        finally:
            self._metrics.loaded(adapter.alias, outcome, time.perf_counter() - started)
