"""Answers requests a second time with shadow versions, unseen by clients, to measure errors and times.

Shadows use only spare capacity: one starts only if no request waits and at most half of the batch is in use.
Few run at once, and all are cancelled when a real request waits.
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
"""Maximum number of requests that shadows answer at once."""
GUARD_SECONDS = 0.02
"""Seconds between checks whether a real request waits, while shadows run."""


class Shadows:
    """The shadows' answers on one engine. One starts only while the engine works on at most `room`
    requests.
    """

    def __init__(self, engine: Engine, metrics: Metrics, room: int) -> None:
        self._engine = engine
        self._metrics = metrics
        self._room = room
        self._running: dict[asyncio.Task[None], bool] = {}
        """Maps each shadow to True once it has begun to answer, so that it no longer counts as waiting."""
        self._guard: asyncio.Task[None] | None = None

    def offer(self, request: GenerationRequest, shadowing: ShadowRequest) -> None:
        """Let the shadow answer `request` too, if the engine has spare capacity."""
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
        """Cancel all answers of shadows and wait until the engine has stopped them. Returns True if there
        were any.
        """
        running = list(self._running)
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        return bool(running)

    async def close(self) -> None:
        """Cancel all answers of shadows, and stop checking for real requests."""
        if self._guard is not None:
            self._guard.cancel()
        await self.clear()

    async def _give_way(self) -> None:
        """While shadows answer, cancel all their answers when a real request waits."""
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
                log.exception(
                    "shadow adapter %s failed to answer a copy of a request; no client's answer is affected",
                    shadowing.adapter.full_name,
                )
        finally:
            self._count(shadowing, outcome)

    def _count(self, shadowing: ShadowRequest, outcome: str) -> None:
        adapter = shadowing.adapter
        self._metrics.shadows.labels(adapter.alias, adapter.version, outcome).inc()
