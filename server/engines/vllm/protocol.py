"""Interfaces between an engine and a core, which runs a base in a separate process.

`server.engines.vllm.engine` is the engine, and `server.engines.vllm.core` implements `Core` with vLLM.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from server.engines.shared.stream import StepEvent
from server.errors import EngineError
from server.metrics.engine_state import EngineInfo
from server.request import EmbeddingRequest, GenerationRequest, TokenLogprob


@dataclass(slots=True, eq=False)
class CoreRequest:
    """A request in the core, which updates its fields."""

    request: GenerationRequest
    core_id: str
    """Id of the request in the core. Unlike the request's own id, it is never reused."""
    arrived: float
    scheduled: float | None = None
    cached: int = 0
    prefilling: bool = True
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])


@dataclass(frozen=True, slots=True)
class CoreLoad:
    """The numbers of running and waiting requests in vLLM's core."""

    kv_usage: float
    """Share of the KV cache in use, 0 to 1."""
    kv_capacity: int
    """Capacity of the KV cache in tokens."""
    prefix_queries: int
    prefix_hits: int
    preemptions: int


class Listener(Protocol):
    """Receives a core's events, on the event loop."""

    def heard(self, work: CoreRequest, events: Sequence[StepEvent], *, finished: bool) -> None:
        """Receive the events of a step for one request. `finished`: they are the last."""
        ...

    def gave_up(self, work: CoreRequest, error: EngineError) -> None:
        """Note that the core has ended a request with an error."""
        ...

    def on_step(self, batch: int) -> None:
        """Note the end of a step that worked on `batch` requests."""
        ...

    def on_death(self, why: str) -> None:
        """Note that the core has died, for the reason `why`. It takes no more work."""
        ...


class Core(Protocol):
    """A base that runs in a separate process. Its methods raise the errors of `server.engines.base`."""

    @property
    def info(self) -> EngineInfo:
        """Constant properties of the core."""
        ...

    @property
    def at_once(self) -> int:
        """Maximum number of requests in a batch."""
        ...

    @property
    def max_rank(self) -> int:
        """Largest rank of an adapter."""
        ...

    @property
    def alive(self) -> bool:
        """True if the core runs."""
        ...

    def load(self) -> CoreLoad:
        """Return how busy the core is."""
        ...

    async def start(self, listener: Listener) -> None:
        """Start the process and load the base. Events go to `listener`."""
        ...

    async def close(self) -> None:
        """End the core's process."""
        ...

    async def add(self, work: CoreRequest, adapter: int | None) -> None:
        """Begin a request. `adapter` is the number of its adapter; None: the base alone."""
        ...

    async def abort(self, core_ids: Sequence[str]) -> None:
        """Abort requests."""
        ...

    async def embed(self, request: EmbeddingRequest, adapter: int | None) -> Sequence[float]:
        """Return the embedding of a text."""
        ...

    async def add_adapter(self, number: int, digest: str, folder: Path) -> None:
        """Load the adapter in `folder`, as `write_plain` saves it, under a number never used before."""
        ...

    async def remove_adapter(self, number: int) -> None:
        """Remove an adapter from the core's memory."""
        ...
