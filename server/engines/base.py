"""The protocols that every engine implements."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Protocol

from adapters.lora.manifest import Adapter
from server.exchange import Held
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest, Share


class StepObserver(Protocol):
    """Receives the figures of every step of the engine's loop, in the engine's thread."""

    def step(self, seconds: float, batch: int) -> None:
        """Called after each step, which took `seconds` and computed `batch` requests."""
        ...


class OpenAdapters(Protocol):
    """The adapters in an engine, as requests use them."""

    @property
    def open(self) -> frozenset[str]:
        """Digests of the adapters that requests may use. The set is replaced, never changed, so any thread
        may read it.
        """
        ...

    @property
    def held(self) -> Collection[str]:
        """Digests of all adapters that take a slot in the engine, including those that are being loaded or
        unloaded.
        """
        ...

    def in_use(self, digest: str) -> bool:
        """True if a running or waiting request uses the adapter."""
        ...


class QueuePlaces(Protocol):
    """Limits the requests in an engine's queue and batch. Each takes one place. Places are divided between
    shares; a share is all requests with the same API key and adapter."""

    @property
    def full(self) -> bool:
        """True if the queue is full. Then a request is accepted only if its share has less than its fair part
        of the queue.
        """
        ...

    @property
    def limit(self) -> int:
        """Maximum number of requests in the engine's queue and batch together."""
        ...

    @property
    def free(self) -> int:
        """Number of further requests that the engine's queue and batch can hold now, whatever their key and
        adapter.
        """
        ...

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if `reserve` would raise it. Reserves nothing, and takes microseconds."""
        ...

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Reserve places in the queue for `count` requests of `share`: all of them or none. Raises
        `EngineBusyError`.
        """
        ...

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if `reserve_all` would raise it. Reserves nothing."""
        ...

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Reserve places in the queue for requests of several shares: all of them or none. Raises
        `EngineBusyError`.
        """
        ...


class Engine(Protocol):
    """One base model with adapters, which batches all its requests."""

    @property
    def info(self) -> EngineInfo:
        """Properties of the base and the engine that never change. You can read them before `start`."""
        ...

    @property
    def residents(self) -> OpenAdapters:
        """The adapters in the engine that requests may use now. Cheap enough to call for every request."""
        ...

    @property
    def places(self) -> QueuePlaces:
        """The engine's queue, in which requests reserve places before they are tokenized. Use it on the event
        loop only.
        """
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
        """Return the text's vector, of unit length. Raises the same errors as `generate`."""
        ...

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into a slot, and test it with one token.

        Idempotent. If this raises `AdapterRefusedError` or is cancelled, the adapter is not loaded.
        """
        ...

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Refuse new requests for `digest`, wait until no request uses it, then remove it.

        With `keep`, the engine may keep the weights in host memory. Other adapters can be loaded and unloaded
        meanwhile. If this is cancelled while it waits, nothing has changed.
        """
        ...

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. Call it from any thread; it never waits for the model."""
        ...

    def fail(self, reason: str) -> None:
        """Mark the engine as dead: end every stream with `EngineDeadError` and refuse all work.

        Does not wait, so it also works on an engine that hangs. Call `close` afterwards.
        """
        ...

    async def close(self) -> None:
        """Abort running requests and release everything. Idempotent."""
        ...
