"""Interfaces between an engine and its core, the separate process that runs the base.

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
    """A request inside the core, which updates the request's times and counts."""

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
    """How full the core's KV cache is, and how often the prefix cache was hit and requests were preempted."""

    kv_usage: float
    """Fraction of the KV cache that is in use, 0 to 1."""
    kv_capacity: int
    """Capacity of the KV cache in tokens."""
    prefix_queries: int
    prefix_hits: int
    preemptions: int


class Listener(Protocol):
    """Receives what happens in a core. All methods are called on the event loop."""

    def heard(self, work: CoreRequest, events: Sequence[StepEvent], *, finished: bool) -> None:
        """Receive the tokens that a step generated for one request. `finished` is true for the last step of
        the request.
        """
        ...

    def gave_up(self, work: CoreRequest, error: EngineError) -> None:
        """Called when the core has ended a request with an error."""
        ...

    def on_step(self, batch: int) -> None:
        """Called at the end of a step that computed a batch of `batch` requests."""
        ...

    def on_death(self, why: str) -> None:
        """Called when the core has died, for the reason `why`. A dead core takes no more requests."""
        ...


class Core(Protocol):
    """A base that runs in a separate process, the core. Its methods raise the errors of
    `server.engines.base`.
    """

    @property
    def info(self) -> EngineInfo:
        """Constant properties of the base and its core."""
        ...

    @property
    def at_once(self) -> int:
        """Maximum number of requests in one batch."""
        ...

    @property
    def max_rank(self) -> int:
        """Largest LoRA rank of an adapter that the core can load."""
        ...

    @property
    def alive(self) -> bool:
        """True if the core's process runs."""
        ...

    def load(self) -> CoreLoad:
        """Return the core's use of the KV cache, and its counts of prefix hits and preemptions."""
        ...

    async def start(self, listener: Listener) -> None:
        """Start the core's process and load the base. The core's events go to `listener`."""
        ...

    async def close(self) -> None:
        """End the core's process, and release its memory."""
        ...

    async def add(self, work: CoreRequest, adapter: int | None) -> None:
        """Send a request to the core. `adapter` is the number of its adapter; None: the base alone."""
        ...

    async def abort(self, core_ids: Sequence[str]) -> None:
        """Abort the requests with these ids, which are those of `CoreRequest.core_id`."""
        ...

    async def embed(self, request: EmbeddingRequest, adapter: int | None) -> Sequence[float]:
        """Return the embedding vector of a text. `adapter` is the number of its adapter; None: the base
        alone.
        """
        ...

    async def add_adapter(self, number: int, digest: str, folder: Path) -> None:
        """Load the adapter in `folder` into the core, under a number that was never used before.
        `write_plain` has written the folder.
        """
        ...

    async def remove_adapter(self, number: int) -> None:
        """Remove the adapter with this number from the core's memory."""
        ...
