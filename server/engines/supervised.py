"""A supervised engine: if it dies or hangs, that is logged, counted and, if allowed, it is restarted."""

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
"""Seconds between checks of the engine."""
WINDOW_SECONDS = 3600.0
"""Restarts older than this many seconds do not count against `restart_engine`."""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds between attempts to restart: doubled each time, from the first value to the last."""
CLOSE_SECONDS = 30.0
"""Seconds for the dead engine to release its memory before the next one starts."""

Failure = Literal["died", "stalled"]
Outcome = Literal["ok", "failed"]

log = logging.getLogger("oneseek.engine")


class FailureObserver(Protocol):
    """Observer of failures of one base's engine."""

    def failed(self, failure: Failure) -> None:
        """Why an engine was given up: it died, or it hung in a step."""
        ...

    def restarted(self, outcome: Outcome) -> None:
        """Count an attempt to start the engine again, with its outcome."""
        ...


class _Places:
    """The queue of the engine that runs now, which changes if a dead engine is replaced by a new one."""

    def __init__(self, current: Callable[[], QueuePlaces]) -> None:
        self._current = current

    @property
    def full(self) -> bool:
        """True if the queue is full, so that only clients with few requests in it get another place. See
        `QueuePlaces.full`.
        """
        return self._current().full

    @property
    def limit(self) -> int:
        """Number of requests that fit into the engine's queue and batch. See `QueuePlaces.limit`."""
        return self._current().limit

    @property
    def free(self) -> int:
        """Number of further requests that the queue can hold now, whatever their key and adapter. See
        `QueuePlaces.free`.
        """
        return self._current().free

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if the queue has no place for the request. See `QueuePlaces.check`."""
        self._current().check(share, count)

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Reserve places in the queue for a request: all of them or none. See `QueuePlaces.reserve`."""
        return self._current().reserve(share, count)

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if the queue has no place for one of several requests. See
        `QueuePlaces.check_all`.
        """
        self._current().check_all(counts)

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Reserve places in the queue for several requests: all of them or none. See
        `QueuePlaces.reserve_all`.
        """
        return self._current().reserve_all(counts)


class SupervisedEngine:
    """Runs an engine and its replacements.

    If a step takes longer than `step_timeout` seconds (None: no limit), the engine counts as hung and its
    streams end with an error. A dead engine is restarted at most `restarts` times an hour, with the adapters
    that were resident. `reopen` runs in a worker thread. Without a restart left, the engine stays dead.
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
        """The adapters in the engine that requests may use now. See `Engine.residents`."""
        return self._engine.residents

    async def start(self) -> None:
        """Start the engine, and watch it from then on."""
        await self._engine.start()
        self._watcher = asyncio.create_task(self._watch())

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Add `request` to the engine, and yield its answer piece by piece. See `Engine.generate`."""
        return self._engine.generate(request)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Return the vector of a text, of unit length. See `Engine.embed`."""
        return await self._engine.embed(request)

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into a slot of the engine, and test it. See `Engine.load`."""
        await self._engine.load(adapter)
        self._adapters[adapter.digest] = adapter

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Unload the adapter `digest` once no request uses it. See `Engine.unload`. If the engine is dead,
        the adapter is not loaded again when the engine is restarted.
        """
        try:
            await self._engine.unload(digest, keep=keep)
        except EngineError:
            self._adapters.pop(digest, None)
            raise
        self._adapters.pop(digest, None)

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. See `Engine.state`."""
        if self._restarting:
            return EngineState(alive=False, progress=0.0, restarting=True)
        state = self._engine.state()
        if not state.alive and self._watches and self._may_restart():
            return EngineState(alive=False, progress=0.0, restarting=True)  # the watcher has yet to see it
        return state

    def fail(self, reason: str) -> None:
        """Mark the engine as dead, and end all its answers. See `Engine.fail`."""
        self._engine.fail(reason)

    async def close(self) -> None:
        """Abort running requests, and release everything that the engine holds. See `Engine.close`."""
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
        """Return why the engine failed; None if it works. Marks an engine that hangs as dead."""
        state = self._engine.state()
        if not state.alive:
            log.critical("the engine has died, and all requests in the engine have failed")
            return "died"
        limit = self._step_timeout
        if limit is None or not state.exceeds(limit):
            return None
        log.critical(
            "the engine hangs in a step that has taken %.0f s, so it is given up and its requests fail; "
            "if steps are that slow on this machine, raise the setting step_timeout (now %g s)",
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
                log.error(
                    "restarting the engine failed; the server tries again while restart_engine allows it: %s",
                    error,
                    exc_info=_unexpected(error),
                )
                await asyncio.sleep(wait)
                wait = min(2 * wait, LONGEST_WAIT)
            else:
                self._observer.restarted("ok")
                log.warning(
                    "the engine was restarted and has loaded %d adapters again",
                    len(self._engine.residents.open),
                )
                return True
            finally:
                self._restarting = False
        if self._restarts:
            log.critical(
                "the engine is not restarted again: it was restarted %d times within an hour, "
                "the most that the setting restart_engine allows",
                self._restarts,
            )
        return False

    async def _replace(self) -> None:
        log.warning("restarting the engine")
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
        """Load the adapters that were resident, except those unloaded meanwhile."""
        for adapter in list(self._adapters.values()):
            if adapter.digest not in self._adapters:
                continue
            try:
                await engine.load(adapter)
            except (AdapterRefusedError, AdapterNotLoadedError) as error:
                log.error(
                    "adapter %s was loaded before the engine's restart, but could not be loaded again: %s",
                    adapter.full_name,
                    error,
                )
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
