"""The protocol every engine keeps, what it reports of itself, and the errors it may raise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Protocol

from adapters.lora.manifest import Adapter
from server.exchange import Held
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest, Share


class StepObserver(Protocol):
    """Told of every step of the engine's loop, from the engine's thread."""

    def step(self, seconds: float, batch: int) -> None:
        """One step took `seconds` and worked on `batch` requests."""
        ...


class OpenAdapters(Protocol):
    """The adapters of an engine that requests may name."""

    @property
    def open(self) -> frozenset[str]:
        """Their digests. It is replaced and never changed, so any thread may read it."""
        ...

    @property
    def held(self) -> Collection[str]:
        """The digests that take a slot: those that are open, on their way in, or on their way out."""
        ...

    def in_use(self, digest: str) -> bool:
        """Whether a request in the engine, running or waiting, uses it."""
        ...


class QueuePlaces(Protocol):
    """The places of an engine, running and waiting, and whose they are."""

    @property
    def full(self) -> bool:
        """Whether only a share with less than its part of the queue gets another."""
        ...

    @property
    def limit(self) -> int:
        """How many places there are."""
        ...

    @property
    def free(self) -> int:
        """How many of them anyone may take."""
        ...

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if `reserve` would. Changes nothing, and takes microseconds."""
        ...

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Hold places, all of them or none. Raises `EngineBusyError`."""
        ...

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if `reserve_all` would. Changes nothing."""
        ...

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Hold places for several shares, all of them or none. Raises `EngineBusyError`."""
        ...


class Engine(Protocol):
    """One base model with adapters, batching whatever it is given."""

    @property
    def info(self) -> EngineInfo:
        """What never changes; available before `start`."""
        ...

    @property
    def residents(self) -> OpenAdapters:
        """Which adapters requests may name now: cheap to ask for every request."""
        ...

    @property
    def places(self) -> QueuePlaces:
        """Places that a request may hold before its tokens are known. On the event loop alone."""
        ...

    async def start(self) -> None:
        """Load the base and be ready to generate."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Admit `request` and yield its deltas; closing or cancelling the iterator aborts the work.

        Raises `EngineBusyError`, `EngineDeadError`, `AdapterNotLoadedError` and `UnsupportedRequestError`
        on the first `anext`.
        """
        ...

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """The text's vector, of unit length. Raises as `generate` does."""
        ...

    async def load(self, adapter: Adapter) -> None:
        """Make `adapter` resident and probe it. Idempotent.

        On `AdapterRefusedError`, and where it is cancelled, nothing has changed.
        """
        ...

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Wait until no request uses `digest`, then truly remove it. New requests for it are refused.

        With `keep`, an engine that has a place for its weights outside of the slots may keep them there.
        Other adapters can be loaded and unloaded meanwhile. Cancelled while it waits, nothing has changed.
        """
        ...

    def state(self) -> EngineState:
        """A snapshot; callable from any thread, never blocks on the model."""
        ...

    def fail(self, reason: str) -> None:
        """Be dead from now on: end every stream with `EngineDeadError` and refuse all work.

        Waits for nothing, so that it works on an engine that hangs. `close` still has to follow.
        """
        ...

    async def close(self) -> None:
        """Abort what runs and release everything. Idempotent."""
        ...
