"""An engine that is watched: one that dies or hangs is reported, counted and, if allowed, started again."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import suppress
from typing import Literal, Protocol

from adapters.lora.manifest import Adapter
from server.engines.base import Engine, OpenAdapters, QueuePlaces
from server.errors import AdapterNotLoadedError, AdapterRefusedError, EngineError
from server.exchange import Held
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest, Share

LOOK_SECONDS = 0.25
"""How often the engine is looked at."""
WINDOW_SECONDS = 3600.0
"""Restarts older than this do not count against the number that is allowed."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between two attempts to start: doubled from the first to the longest."""
CLOSE_SECONDS = 30.0
"""How long the dead engine has to give its memory back before the next one starts."""

Failure = Literal["died", "stalled"]
Outcome = Literal["ok", "failed"]

log = logging.getLogger("oneseek.engine")


class FailureObserver(Protocol):
    """Counts what goes wrong with one base's engine."""

    def failed(self, failure: Failure) -> None:
        """The engine died, or hung and was given up."""
        ...

    def restarted(self, outcome: Outcome) -> None:
        """An attempt to start it again has ended."""
        ...


class _Places:
    """The places of whichever engine runs."""

    def __init__(self, current: Callable[[], QueuePlaces]) -> None:
        self._current = current

    @property
    def full(self) -> bool:
        """See `QueuePlaces.full`."""
        return self._current().full

    @property
    def limit(self) -> int:
        """See `QueuePlaces.limit`."""
        return self._current().limit

    @property
    def free(self) -> int:
        """See `QueuePlaces.free`."""
        return self._current().free

    def check(self, share: Share, count: int = 1) -> None:
        """See `QueuePlaces.check`."""
        self._current().check(share, count)

    def reserve(self, share: Share, count: int = 1) -> Held:
        """See `QueuePlaces.reserve`."""
        return self._current().reserve(share, count)

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """See `QueuePlaces.check_all`."""
        self._current().check_all(counts)

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """See `QueuePlaces.reserve_all`."""
        return self._current().reserve_all(counts)


class SupervisedEngine:
    """Stands for an engine and for those that take its place.

    A step that takes longer than `step_timeout` seconds (None: no limit) is given up: its streams end with an
    error. A dead engine is opened and started again at most `restarts` times an hour, with the adapters that
    were resident; `reopen` runs in a worker thread. Without a restart left, the engine stays dead.
    """

    def __init__(
        self,
        engine: Engine,
        reopen: Callable[[], Engine],
        observer: FailureObserver,
        *,
        restarts: int = 0,
        step_timeout: float | None = None,
    ) -> None:
        self._engine = engine
        self._reopen = reopen
        self._observer = observer
        self._restarts = restarts
        self._step_timeout = step_timeout
        self._recent: deque[float] = deque()
        self._adapters: dict[str, Adapter] = {}
        self._restarting = False
        self._closed = False
        self._watcher: asyncio.Task[None] | None = None
        self.info: EngineInfo = engine.info
        self.places: QueuePlaces = _Places(lambda: self._engine.places)

    @property
    def residents(self) -> OpenAdapters:
        """See `Engine.residents`."""
        return self._engine.residents

    async def start(self) -> None:
        """Start the engine, and watch it from then on."""
        await self._engine.start()
        self._watcher = asyncio.create_task(self._watch())

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        return self._engine.generate(request)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """See `Engine.embed`."""
        return await self._engine.embed(request)

    async def load(self, adapter: Adapter) -> None:
        """See `Engine.load`."""
        await self._engine.load(adapter)
        self._adapters[adapter.digest] = adapter

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """See `Engine.unload`. A dead engine holds nothing, and the next one does not get it back."""
        try:
            await self._engine.unload(digest, keep=keep)
        except EngineError:
            self._adapters.pop(digest, None)
            raise
        self._adapters.pop(digest, None)

    def state(self) -> EngineState:
        """See `Engine.state`."""
        if self._restarting:
            return EngineState(alive=False, progress=0.0, restarting=True)
        state = self._engine.state()
        if not state.alive and self._watches and self._may_restart():
            return EngineState(alive=False, progress=0.0, restarting=True)  # the watcher has yet to see it
        return state

    def fail(self, reason: str) -> None:
        """See `Engine.fail`."""
        self._engine.fail(reason)

    async def close(self) -> None:
        """See `Engine.close`."""
        self._closed = True
        watcher, self._watcher = self._watcher, None
        if watcher is not None:
            watcher.cancel()
            with suppress(asyncio.CancelledError):
                await watcher
        await self._engine.close()

    @property
    def _watches(self) -> bool:
        return not self._closed and self._watcher is not None and not self._watcher.done()

    async def _watch(self) -> None:
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            failure = self._look()
            if failure is None:
                continue
            self._observer.failed(failure)
            if not await self._restart():
                return

    def _look(self) -> Failure | None:
        """What is wrong with the engine; one that hangs is dead afterwards."""
        state = self._engine.state()
        if not state.alive:
            log.critical("the engine has died")
            return "died"
        limit = self._step_timeout
        if limit is None or not state.exceeds(limit):
            return None
        log.critical(
            "the engine has been at one step for %.0f s and is given up; "
            "if steps are that slow on this machine, raise step_timeout (now %g)",
            state.progress,
            limit,
        )
        self._engine.fail("the engine hangs in a step")
        return "stalled"

    async def _restart(self) -> bool:
        """Start the engine again; False if no restart is left."""
        wait = FIRST_WAIT
        while self._may_restart():
            self._restarting = True
            self._recent.append(time.monotonic())
            try:
                await self._replace()
            except Exception as error:
                self._observer.restarted("failed")
                log.error("the engine did not start again: %s", error, exc_info=_unexpected(error))
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self._observer.restarted("ok")
                log.warning(
                    "the engine has started again, with %d adapters", len(self._engine.residents.open)
                )
                return True
            finally:
                self._restarting = False
        if self._restarts:
            log.critical("the engine is not started again: restart_engine allows %d an hour", self._restarts)
        return False

    async def _replace(self) -> None:
        log.warning("starting the engine again")
        with suppress(TimeoutError):
            await asyncio.wait_for(self._engine.close(), CLOSE_SECONDS)
        engine = await asyncio.to_thread(self._reopen)
        try:
            await engine.start()
            await self._load_again(engine)
        except BaseException:
            await engine.close()
            raise
        self._engine = engine

    async def _load_again(self, engine: Engine) -> None:
        """Load what was resident, without what is unloaded meanwhile."""
        for adapter in list(self._adapters.values()):
            if adapter.digest not in self._adapters:
                continue
            try:
                await engine.load(adapter)
            except (AdapterRefusedError, AdapterNotLoadedError) as error:
                log.error("adapter %s is not resident any more: %s", adapter.full_name, error)
                self._adapters.pop(adapter.digest, None)
        for digest in engine.residents.open - self._adapters.keys():
            await engine.unload(digest)

    def _may_restart(self) -> bool:
        oldest = time.monotonic() - WINDOW_SECONDS
        while self._recent and self._recent[0] < oldest:
            self._recent.popleft()
        return len(self._recent) < self._restarts


def _unexpected(error: Exception) -> Exception | None:
    return None if isinstance(error, EngineError | OSError) else error
