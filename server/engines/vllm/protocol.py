"""A base in a process of its own, as an engine sees it: what is asked of it, and what it tells.

`server.engines.vllm.engine` is the engine over it, `server.engines.vllm.core` vLLM's core.
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
    """One request on its way through the core, which changes it."""

    request: GenerationRequest
    core_id: str
    """Its name in the core; never used again, as a request's own may be."""
    arrived: float
    scheduled: float | None = None
    cached: int = 0
    prefilling: bool = True
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])


@dataclass(frozen=True, slots=True)
class CoreLoad:
    """How busy a core is."""

    kv_usage: float
    """From 0 to 1."""
    kv_capacity: int
    """Tokens."""
    prefix_queries: int
    prefix_hits: int
    preemptions: int


class Listener(Protocol):
    """Told on the event loop of what a core does."""

    def heard(self, work: CoreRequest, events: Sequence[StepEvent], *, finished: bool) -> None:
        """A step has done this for a request."""
        ...

    def gave_up(self, work: CoreRequest, error: EngineError) -> None:
        """The core ends a request with an error."""
        ...

    def on_step(self, batch: int) -> None:
        """A step that worked on `batch` requests is over."""
        ...

    def on_death(self, why: str) -> None:
        """The core will do nothing any more."""
        ...


class Core(Protocol):
    """A base in a process of its own. Its methods raise the errors of `server.engines.base`."""

    @property
    def info(self) -> EngineInfo:
        """What never changes."""
        ...

    @property
    def at_once(self) -> int:
        """Most requests in one batch."""
        ...

    @property
    def max_rank(self) -> int:
        """Largest rank of an adapter."""
        ...

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        ...

    def load(self) -> CoreLoad:
        """How busy it is."""
        ...

    async def start(self, listener: Listener) -> None:
        """Load the base and be ready."""
        ...

    async def close(self) -> None:
        """End the core's process."""
        ...

    async def add(self, work: CoreRequest, adapter: int | None) -> None:
        """Begin a request, with the adapter of that number."""
        ...

    async def abort(self, core_ids: Sequence[str]) -> None:
        """Give up requests."""
        ...

    async def embed(self, request: EmbeddingRequest, adapter: int | None) -> Sequence[float]:
        """The text's vector."""
        ...

    async def add_adapter(self, number: int, digest: str, folder: Path) -> None:
        """Load the plain adapter in `folder` under a number that was never used before."""
        ...

    async def remove_adapter(self, number: int) -> None:
        """Forget it, wholly."""
        ...
