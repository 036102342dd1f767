"""Answers requests a second time, by versions whose answers nobody sees, for their errors and their time.

A shadow takes what real requests leave: it begins only where nothing waits and less than half of a batch is
in use, few run at once, and all are given up once something waits.
"""

from __future__ import annotations

import asyncio
import logging
import uuid
from contextlib import aclosing
from dataclasses import replace

from server.engines.base import Engine
from server.errors import EngineBusyError, EngineError, UnsupportedRequestError
from server.metrics.metrics import Metrics
from server.metrics.pace import Pace
from server.request import GenerationRequest
from server.rollout.trials import ShadowRequest

log = logging.getLogger("oneseek.rollout")

AT_ONCE = 2
"""Most shadows that run at once."""
GUARD_SECONDS = 0.02
"""Between two looks at whether a request waits for what shadows use."""


class Shadows:
    """The shadows of one engine. `room` is how many requests it works on at most while one begins."""

    def __init__(self, engine: Engine, metrics: Metrics, room: int) -> None:
        self._engine = engine
        self._metrics = metrics
        self._room = room
        self._running: dict[asyncio.Task[None], bool] = {}
        """Each with whether it has begun to answer, so that it does not wait itself."""
        self._guard: asyncio.Task[None] | None = None

    def offer(self, request: GenerationRequest, shadowing: ShadowRequest) -> None:
        """Answer what `request` asks by the shadow as well, where the engine has room for it."""
        state = self._engine.state()
        busy = sum(state.waiting.values()) > 0 or sum(state.running.values()) > self._room
        if busy or len(self._running) >= AT_ONCE:
            self._count(shadowing, "dropped")
            return
        digest = shadowing.adapter.digest
        own = replace(
            request,
            request_id=uuid.uuid4().hex,
            adapter_mix=((digest, 1.0),),
            share=digest,
            background=True,
            reservation="",
        )
        task = asyncio.create_task(self._count_run(own, shadowing))
        self._running[task] = False
        task.add_done_callback(self._running.pop)
        if self._guard is None or self._guard.done():
            self._guard = asyncio.create_task(self._give_way())

    async def clear(self) -> bool:
        """Give up all of them, and return once the engine has; whether there were any."""
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        return bool(running)

    async def close(self) -> None:
        """End all of them."""
        if self._guard is not None:
            self._guard.cancel()
        await self.clear()

    async def _give_way(self) -> None:
        """Give up all shadows once something else waits, for as long as any runs."""
        while self._running:
            await asyncio.sleep(GUARD_SECONDS)
            own = sum(not begun for begun in self._running.values())
            if sum(self._engine.state().waiting.values()) > own:
                await self.clear()

    async def _count_run(self, request: GenerationRequest, shadowing: ShadowRequest) -> None:
        with self._metrics.using(shadowing.adapter):
            await self._run(request, shadowing)

    async def _run(self, request: GenerationRequest, shadowing: ShadowRequest) -> None:
        task = asyncio.current_task()
        assert task is not None
        outcome, pace = "dropped", Pace()
        try:
            async with aclosing(self._engine.generate(request)) as source:
                async for delta in source:
                    self._running[task] = True
                    pace.tokens(len(delta.token_ids))
            outcome = "ok"
            shadowing.window.add_answer(pace)
            self._metrics.record_shadow(shadowing.adapter, pace)
        except (EngineBusyError, UnsupportedRequestError):
            pass
        except Exception as error:
            outcome = "error"
            shadowing.window.add_failure()
            if not isinstance(error, EngineError):
                log.exception("the shadow %s failed", shadowing.adapter.full_name)
        finally:
            self._count(shadowing, outcome)

    def _count(self, shadowing: ShadowRequest, outcome: str) -> None:
        adapter = shadowing.adapter
        self._metrics.shadows.labels(adapter.alias, adapter.version, outcome).inc()
