"""An engine whose base is loaded at the first request, and unloaded once it has been idle for some time."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from adapters.lora.manifest import Adapter
from server.engines.base import Engine, OpenAdapters
from server.engines.demand_places import BUSY_RETRY, CountedPlaces, DemandPlaces, KnownAdapters
from server.engines.loaded_bases import LoadedBases, Why
from server.errors import (
    AdapterRefusedError,
    BaseNotLoadedError,
    BaseUnavailableError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
)
from server.exchange import Held
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest, Share

FIRST_RETRY, LONGEST_RETRY = 5.0, 300.0
"""Seconds before a failed load is retried: the first value, doubled after each failure up to the second."""

BasePhase = Literal["unloaded", "loading", "loaded", "unloading", "failed"]

log = logging.getLogger("oneseek.bases")


class LoadObserver(Protocol):
    """Observer of the loads and unloads of one base, such as its metrics."""

    def base_loaded(self, outcome: Literal["ok", "failed"], seconds: float) -> None:
        """Called when a load of the base has ended, after `seconds`."""
        ...

    def base_unloaded(self, reason: Why) -> None:
        """Called when the base has been unloaded, with the reason."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class DemandLimits:
    """Limits of an on-demand base: idle time, waiting time and number of waiting requests."""

    idle_seconds: float
    """Seconds without a request after which the base is unloaded."""
    wait_seconds: float
    """Maximum seconds that a request waits until the base is loaded."""
    most_waiting: int
    """Maximum number of requests that wait until the base is loaded."""


class OnDemandEngine:
    """An engine whose base is loaded on demand. `reopen` creates the real engine, in a worker thread.

    Use it on the event loop only; `state` may be called from any thread.
    """

    def __init__(
        self,
        name: str,
        info: EngineInfo,
        reopen: Callable[[], Engine],
        loaded: LoadedBases,
        observer: LoadObserver,
        limits: DemandLimits,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.info = info
        self._reopen = reopen
        self._loaded = loaded
        self._observer = observer
        self._limits = limits
        self._clock = clock
        self._engine: Engine | None = None
        self._phase: BasePhase = "unloaded"
        self._task: asyncio.Task[None] | None = None
        self._watcher: asyncio.Task[None] | None = None
        self._adapters: dict[str, Adapter] = {}
        self._held: set[CountedPlaces] = set()
        self._active = 0
        self._waiting = 0
        self._closed = False
        self._problem = ""
        self._retry_at = 0.0
        self._retry_seconds = FIRST_RETRY
        self.last_used = 0.0
        """Time of the last request, in seconds of `clock`. The least recently used base is unloaded first."""
        self.places = DemandPlaces(self)
        loaded.add(self)

    @property
    def phase(self) -> BasePhase:
        """State of the base in memory. `failed`: the base is not loaded, because its last load has failed."""
        return self._phase

    @property
    def problem(self) -> str | None:
        """Why the last load of the base failed, as text for people; None if it did not fail."""
        return self._problem if self._phase == "failed" else None

    @property
    def referenced(self) -> bool:
        """True if any request or adapter load uses the base, or waits until it is loaded."""
        self._held = {held for held in self._held if held.open}
        return bool(self._active or self._waiting or self._held)

    @property
    def wanted(self) -> bool:
        """True if any request waits until the base is loaded."""
        return self._waiting > 0

    @property
    def idle(self) -> bool:
        """True if the base is loaded and nothing uses it, so that it can be unloaded now."""
        return self._phase == "loaded" and not self.referenced

    @property
    def engine(self) -> Engine | None:
        """The engine of the loaded base; None while the base is not loaded."""
        return self._engine if self._phase == "loaded" else None

    @property
    def most_waiting(self) -> int:
        """Maximum number of requests that may wait until the base is loaded."""
        return self._limits.most_waiting

    @property
    def residents(self) -> OpenAdapters:
        """The adapters in the engine or, while the base is not loaded, those that will be loaded with it."""
        engine = self.engine
        return engine.residents if engine is not None else KnownAdapters(frozenset(self._adapters))

    async def start(self) -> None:
        """Start without loading the base. From now on, unload it after `idle_seconds` without a request."""
        self._watcher = asyncio.create_task(self._watch())

    async def ready(self) -> None:
        """Wait until the base is loaded. The base cannot be unloaded before the caller's next `await`.

        Raises `BaseNotLoadedError` after `wait_seconds`, `BaseUnavailableError` if the load fails or has just
        failed, `EngineBusyError` if too many requests wait, `EngineDeadError` if the server is shutting down.
        """
        if self._waiting >= self._limits.most_waiting:
            raise EngineBusyError(
                f"Too many requests are waiting for the base {self.name} to load. Retry shortly.", BUSY_RETRY
            )
        end = self._clock() + self._limits.wait_seconds
        self._waiting += 1
        try:
            while self.engine is None:
                await self._progress(end)
        finally:
            self._waiting -= 1
            self._loaded.look_again()
        self.last_used = self._clock()

    async def _progress(self, end: float) -> None:
        """Wait for the load or unload that is under way; if there is none, begin to load the base."""
        if self._closed:
            raise EngineDeadError("the base was not loaded, because the server is shutting down; retry later")
        now = self._clock()
        if self._phase == "failed" and now < self._retry_at:
            raise BaseUnavailableError(self.name, self._problem, self._retry_at - now)
        if self._task is None:
            self._begin("loading", self._load())
        if now >= end:
            raise BaseNotLoadedError(self.name, BUSY_RETRY)
        assert self._task is not None
        await asyncio.wait([self._task], timeout=end - now)

    def unload_now(self, reason: Why) -> asyncio.Task[None]:
        """Begin to unload the base, which must be idle, and return the task that does it."""
        assert self.idle
        assert self._task is None
        return self._begin("unloading", self._unload(reason))

    def _begin(self, phase: BasePhase, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        self._phase = phase
        task = self._task = asyncio.create_task(work)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[None]) -> None:
        if self._task is task:
            self._task = None
        if not task.cancelled():
            task.exception()  # seen
        self._loaded.look_again()

    async def _load(self) -> None:
        began = self._clock()
        engine: Engine | None = None
        after: BasePhase = "unloaded"
        try:
            if not await self._loaded.take(self):
                return
            log.info("loading base %s", self.name)
            engine = await asyncio.to_thread(self._reopen)
            await engine.start()
            await self._bring_in(engine)
            self._engine, after = engine, "loaded"
        except Exception as error:
            after = self._failed(error, self._clock() - began)
        finally:
            if after != "loaded":
                await self._drop(engine)
            self._phase = after
        if after == "loaded":
            self._retry_seconds = FIRST_RETRY
            self.last_used = self._clock()
            self._observer.base_loaded("ok", self.last_used - began)
            log.info("base model %s was loaded in %.1f s", self.name, self.last_used - began)

    def _failed(self, error: Exception, seconds: float) -> BasePhase:
        expected = isinstance(error, EngineError | OSError | ValueError | MemoryError)
        self._problem = _public(error)
        self._retry_at = self._clock() + self._retry_seconds
        log.error(
            "base model %s failed to load, and requests for this base get 503; "
            "the first request after %.0f s starts another attempt: %s",
            self.name,
            self._retry_seconds,
            error,
            exc_info=None if expected else error,
        )
        self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY)
        self._observer.base_loaded("failed", seconds)
        return "failed"

    async def _bring_in(self, engine: Engine) -> None:
        """Load into the new `engine` the adapters that the base had before, and those requested since."""
        while missing := self._adapters.keys() - engine.residents.open:
            adapter = self._adapters[next(iter(missing))]
            try:
                await engine.load(adapter)
            except AdapterRefusedError as error:
                log.error(
                    "a base model was loaded without one of its adapters, because the engine refused "
                    "this adapter: %s",
                    error,
                )
                self._adapters.pop(adapter.digest, None)

    async def _drop(self, engine: Engine | None) -> None:
        try:
            if engine is not None:
                await engine.close()
        finally:
            self._loaded.give_back(self)

    async def _unload(self, reason: Why) -> None:
        engine, self._engine = self._engine, None
        try:
            await self._drop(engine)
        finally:
            self._phase = "failed" if reason == "died" else "unloaded"
        self._observer.base_unloaded(reason)
        log.info("base model %s was unloaded from memory (reason: %s)", self.name, reason)

    async def _watch(self) -> None:
        idle_seconds = self._limits.idle_seconds
        while True:
            await asyncio.sleep(min(1.0, max(0.02, idle_seconds / 4)))
            engine = self.engine
            if engine is None or self._task is not None:
                continue
            state = engine.state()
            if not (state.alive or state.restarting):
                self._problem = "its engine has died; the server's log has the reason"
                self._retry_at = self._clock() + self._retry_seconds
                self._retry_seconds = min(2 * self._retry_seconds, LONGEST_RETRY)
                self._begin("unloading", self._unload("died"))
            elif self.idle and self._clock() - self.last_used >= idle_seconds:
                self.unload_now("idle")

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Yield the answer to `request`. Raises `BaseNotLoadedError` if the base is not loaded. See
        `Engine.generate`.
        """
        source = self._required().generate(request)
        self._active += 1
        try:
            async for delta in source:
                yield delta
        finally:
            self._leave()
            await source.aclose()

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Return the embedding vector of a text. Raises `BaseNotLoadedError` if the base is not loaded. See
        `Engine.embed`.
        """
        engine = self._required()
        self._active += 1
        try:
            return await engine.embed(request)
        finally:
            self._leave()

    async def load(self, adapter: Adapter) -> None:
        """Load and test `adapter` now or, if the base is not loaded, with the base. See `Engine.load`."""
        engine = self.engine
        if engine is None:
            self._adapters[adapter.digest] = adapter
            return
        self._active += 1
        try:
            await engine.load(adapter)
            self._adapters[adapter.digest] = adapter
        finally:
            self._leave()

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Unload the adapter `digest` once no request uses it. See `Engine.unload`."""
        adapter, engine = self._adapters.pop(digest, None), self.engine
        if engine is None:
            return
        try:
            await engine.unload(digest, keep=keep)
        except asyncio.CancelledError:
            if adapter is not None and digest in engine.residents.open:
                self._adapters[digest] = adapter
            raise

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. A base that is not loaded counts as alive."""
        engine = self.engine
        state = engine.state() if engine is not None else None
        # A dead engine is taken away within a second, and loaded again when it is needed.
        if state is None or not (state.alive or state.restarting):
            return EngineState(alive=True, progress=0.0, loaded=False)
        return state

    def fail(self, reason: str) -> None:
        """Mark the engine of a loaded base as dead, and end all its answers. See `Engine.fail`."""
        if self._engine is not None:
            self._engine.fail(reason)

    async def close(self) -> None:
        """Abort running requests, and unload the base if it is loaded. See `Engine.close`."""
        self._closed = True
        tasks = [task for task in (self._watcher, self._task) if task is not None]
        self._watcher = None
        for task in tasks:
            task.cancel()
            with suppress(asyncio.CancelledError):
                await task
        engine, self._engine = self._engine, None
        if engine is not None:
            await self._drop(engine)
        self._phase = "unloaded"

    def _required(self) -> Engine:
        engine = self.engine
        if engine is None:
            raise BaseNotLoadedError(self.name, BUSY_RETRY)
        return engine

    def _leave(self) -> None:
        self._active -= 1
        self.released()

    def reserve(self, engine: Engine, share: Share, count: int) -> Held:
        """Reserve `count` places in the queue of `engine`, and keep the base loaded until they are free."""
        held = CountedPlaces(engine.places.reserve(share, count), self)
        self._held.add(held)
        return held

    def reserve_all(self, engine: Engine, counts: Mapping[Share, int]) -> dict[Share, Held]:
        """Reserve places in the queue of `engine` for several API keys or adapters. See `reserve`."""
        reserved = engine.places.reserve_all(counts)
        held = {share: CountedPlaces(one, self) for share, one in reserved.items()}
        self._held |= {*held.values()}
        return dict(held)

    def released(self) -> None:
        """Record that a request or an adapter load no longer uses the base."""
        self.last_used = self._clock()
        self._loaded.look_again()


def _public(error: Exception) -> str:
    """Return why a base could not be loaded, as text for clients without any file path of the server."""
    if isinstance(error, OSError):
        return (error.strerror or type(error).__name__).lower()
    if isinstance(error, MemoryError):
        return "the server has too little free memory"
    if isinstance(error, EngineError) and "/" not in str(error) and "\\" not in str(error):
        return str(error)
    return "the server's log has the reason"
