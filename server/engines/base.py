"""The protocol every engine keeps, what it reports of itself, and the errors it may raise."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping
from dataclasses import dataclass, field
from typing import Literal, Protocol

from adapters.lora.manifest import Adapter
from server.request import Delta, EmbeddingRequest, GenerationRequest

Tier = Literal["device", "host", "disk"]
Task = Literal["generate", "embed"]
FallbackReason = Literal["absent", "failed", "memory", "logits"]
"""Why a device is not used: it does not come up, it or its driver failed, memory is short for it, or its
logits are not the CPU's."""


@dataclass(frozen=True, slots=True)
class DeviceFallback:
    """Why the CPU computes where `auto` would have had another device."""

    device: str
    reason: FallbackReason
    message: str
    """For people; safe to show."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """What an engine computes on."""

    name: str
    """`cpu`, `directml` or `webgpu`."""
    provider: str
    """What ONNX Runtime calls it, as the open session says."""
    precision: str
    """`fp32`, `fp16`, `int8` or `int4`: of the base's weights."""
    fallback: DeviceFallback | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """What never changes while an engine runs."""

    name: str
    """`embedded` or `vllm`."""
    base_digest: str
    context: int
    """Most tokens of prompt and answer together."""
    vocabulary: int
    blends: bool
    """Whether a request may weigh several adapters."""
    max_adapters: int
    """Adapters that can be resident at once."""
    task: Task = "generate"
    """What the base is served for; the other task is refused with `UnsupportedRequestError`."""
    device: DeviceInfo | None = None
    """Of the embedded engine alone; vLLM says its own."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """A snapshot, cheap enough to take for every scrape and health check."""

    alive: bool
    progress: float
    """Seconds since the engine last completed a step or was idle; large means it hangs."""
    running: Mapping[str, int] = field(default_factory=dict[str, int])
    """Adapter digest (empty: base) → requests being worked on."""
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    kv_tokens: int = 0
    """Tokens whose keys and values are held, cached prefixes included."""
    kv_capacity: int = 0
    """Tokens that fit the KV budget."""
    kv_cached: int = 0
    """Of `kv_tokens`, those held for reuse alone; freed on demand."""
    prefix_queries: int = 0
    """Prompt tokens looked up in the prefix cache, since start."""
    prefix_hits: int = 0
    """Prompt tokens found there, since start."""
    preemptions: int = 0
    """Running requests put back for want of KV memory, since start."""
    resident: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    """Adapter digest → where its weights are."""


class StepObserver(Protocol):
    """Told of every step of the engine's loop, from the engine's thread."""

    def step(self, seconds: float, batch: int) -> None:
        """One step took `seconds` and worked on `batch` requests."""
        ...


class Engine(Protocol):
    """One base model with adapters, batching whatever it is given."""

    @property
    def info(self) -> EngineInfo:
        """What never changes; available before `start`."""
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

    async def unload(self, digest: str) -> None:
        """Wait until no request uses `digest`, then truly remove it. New requests for it are refused.

        Other adapters can be loaded and unloaded meanwhile. Cancelled while it waits, nothing has changed.
        """
        ...

    def state(self) -> EngineState:
        """A snapshot; callable from any thread, never blocks on the model."""
        ...

    async def close(self) -> None:
        """Abort what runs and release everything. Idempotent."""
        ...
