"""Watches an engine: if the engine dies or hangs, logs and counts the failure and, if allowed, restarts the
engine.
"""

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
"""Seconds between two checks whether the engine is alive and makes progress."""
WINDOW_SECONDS = 3600.0
"""Time in seconds after which a restart no longer counts towards the setting `restart_engine`, the maximum
number of restarts.
"""
FIRST_WAIT, LONGEST_WAIT = 1.0, 60.0
"""Seconds to wait after a failed restart: the first value, doubled after each failure up to the second."""
CLOSE_SECONDS = 30.0
"""Maximum seconds to wait until the dead engine has released its memory, before the next one starts."""

Failure = Literal["died", "stalled"]
Outcome = Literal["ok", "failed"]

log = logging.getLogger("oneseek.engine")


class FailureObserver(Protocol):
    """Observer of the failures and restarts of one base's engine, such as its metrics."""

    def failed(self, failure: Failure) -> None:
        """Called when the engine has failed: it died, or it stalled in a step."""
        ...

    def restarted(self, outcome: Outcome) -> None:
        """Called after each attempt to restart the engine, with the outcome."""
        ...


class _Places:
    """The queue of whichever engine is running. A restart replaces a dead engine, and its queue, by a new
    one.
    """

    def __init__(self, current: Callable[[], QueuePlaces]) -> None:
        self._current = current

    @property
    def full(self) -> bool:
        """True if the engine's queue is full. Then a request still gets a place if its API key and adapter
        have less than their fair part of the queue: a waiting request of others is refused for it. See
        `QueuePlaces.full`.
        """
        return self._current().full

    @property
    def limit(self) -> int:
        """Maximum number of requests in the engine's queue and batch together. See `QueuePlaces.limit`."""
        return self._current().limit

    @property
    def free(self) -> int:
        """Number of further requests that the engine's queue can take now, whatever their API key and
        adapter. See `QueuePlaces.free`.
        """
        return self._current().free

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if the engine's queue has no room for `count` requests. See
        `QueuePlaces.check`.
        """
        self._current().check(share, count)

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Reserve `count` places in the engine's queue, all of them or none. See `QueuePlaces.reserve`."""
        return self._current().reserve(share, count)

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if the queue has no room for all the requests in `counts`. See
        `QueuePlaces.check_all`.
        """
        self._current().check_all(counts)

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Reserve places in the engine's queue for all the requests in `counts`, or for none. See
        `QueuePlaces.reserve_all`.
        """
        return self._current().reserve_all(counts)


class SupervisedEngine:
    """Runs an engine, and replaces it by a new one if it dies or hangs.

    If a step takes longer than `step_timeout` seconds (None: no limit), the engine counts as hung, and its
    answers end with an error. A dead engine is restarted, with the adapters that were loaded, at most
    `restarts` times an hour; after that it stays dead. `reopen` creates the new engine, in a worker thread.
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
        """Start the engine, and check from then on that it is alive."""
        await self._engine.start()
        self._watcher = asyncio.create_task(self._watch())

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Add `request` to the engine, and yield its answer piece by piece. See `Engine.generate`."""
        return self._engine.generate(request)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Return the embedding vector of a text, of unit length. See `Engine.embed`."""
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
        """Return how the engine failed; None if it works. An engine that hangs is marked as dead."""
        state = self._engine.state()
        if not state.alive:
            log.critical(
                "the engine has died and its requests have failed; it is restarted if the setting "
                "restart_engine allows"
            )
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
        self._engine.fail("a step of the engine took longer than the setting step_timeout")
        return "stalled"

    async def _restart(self) -> bool:
        """Restart the engine, retrying on failure. Return False if `restarts` allows no further attempt."""
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
                "the most that the setting restart_engine allows; look in the log above for the reason",
                self._restarts,
            )
        return False

    async def _replace(self) -> None:
        log.warning("the server restarts the engine, which has died or hung")
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
        """Load into the new `engine` the adapters that the dead engine had, except those unloaded since."""
        for adapter in list(self._adapters.values()):
            if adapter.digest not in self._adapters:
                continue
            try:
                await engine.load(adapter)
            except (AdapterRefusedError, AdapterNotLoadedError) as error:
                log.error(
                    "the engine was restarted without adapter %s, which was loaded before but cannot be "
                    "loaded again; requests for this adapter try to load it once more: %s",
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
