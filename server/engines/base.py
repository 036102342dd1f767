"""Protocols that every engine implements: the engine itself, its adapters, its queue and its observer."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping
from typing import Protocol

from adapters.lora.manifest import Adapter
from server.exchange import Held
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest, Share


class StepObserver(Protocol):
    """Receives the duration and batch size of every step of an engine, possibly in the engine's own
    thread.
    """

    def step(self, seconds: float, batch: int) -> None:
        """Called after each engine step, which took `seconds` and computed a batch of `batch` requests."""
        ...


class OpenAdapters(Protocol):
    """The adapters that an engine holds: which of them requests may use, and which are in use."""

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
    """Limits the number of requests in an engine's queue and batch, where each request takes one place.

    The places are divided fairly between shares. A share is all requests with the same API key and adapter.
    """

    @property
    def full(self) -> bool:
        """True if the engine's queue is full. Then a request is accepted only if the requests with its API
        key and adapter take less than their fair part of the queue.
        """
        ...

    @property
    def limit(self) -> int:
        """Maximum number of requests in the engine's queue and batch together."""
        ...

    @property
    def free(self) -> int:
        """Number of further requests that the engine's queue and batch can take now, whatever their API key
        and adapter.
        """
        ...

    def check(self, share: Share, count: int = 1) -> None:
        """Raise `EngineBusyError` if the queue has no room for `count` requests, without reserving places.
        Takes microseconds.
        """
        ...

    def reserve(self, share: Share, count: int = 1) -> Held:
        """Reserve `count` places in the engine's queue for requests with one API key and adapter (`share`),
        all of them or none. Raises `EngineBusyError` if the queue has no room.
        """
        ...

    def check_all(self, counts: Mapping[Share, int]) -> None:
        """Raise `EngineBusyError` if the queue has no room for all the requests in `counts`, without
        reserving places.
        """
        ...

    def reserve_all(self, counts: Mapping[Share, int]) -> Mapping[Share, Held]:
        """Reserve places in the engine's queue for requests with several API keys or adapters, all of them or
        none.

        `counts` maps each pair of API key and adapter to its number of requests. Raises `EngineBusyError` if
        the queue has no room.
        """
        ...


class Engine(Protocol):
    """One base model with its LoRA adapters. All requests are computed in the same batches, whatever their
    adapter.
    """

    @property
    def info(self) -> EngineInfo:
        """Constant properties of the base and its engine, which can be read before `start`."""
        ...

    @property
    def residents(self) -> OpenAdapters:
        """The adapters in the engine, with the set of those that requests may use now. Cheap enough to read
        for every request.
        """
        ...

    @property
    def places(self) -> QueuePlaces:
        """The engine's queue, in which requests reserve places before they are tokenized. Use it on the event
        loop only.
        """
        ...

    async def start(self) -> None:
        """Load the base into memory, and return once the engine can take requests."""
        ...

    def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Add `request` to the engine, and yield its answer as deltas.

        Closing or cancelling the iterator aborts the request. The first `anext` raises `EngineBusyError`,
        `EngineDeadError`, `AdapterNotLoadedError` or `UnsupportedRequestError` if the engine does not accept
        the request.
        """
        ...

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Return the embedding vector of a text, scaled to unit length. Raises the same errors as
        `generate`.
        """
        ...

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into an adapter slot of the engine, and generate one token to test it.

        Does nothing if the adapter is loaded already. If this raises `AdapterRefusedError` or is cancelled,
        the adapter is not loaded.
        """
        ...

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Refuse new requests for the adapter `digest`, wait until no request uses it, then unload it.

        With `keep`, the engine may keep the adapter's weights in host memory. Other adapters can be loaded
        and unloaded meanwhile. If this is cancelled while it waits, the adapter stays loaded.
        """
        ...

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. Call it from any thread; it never waits for the model."""
        ...

    def fail(self, reason: str) -> None:
        """Mark the engine as dead: end every answer with `EngineDeadError`, and refuse all further requests.

        Does not wait, so it also works on an engine that hangs. Call `close` afterwards.
        """
        ...

    async def close(self) -> None:
        """Abort running requests, and release all memory and processes of the engine. Idempotent."""
        ...
