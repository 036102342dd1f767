"""What an engine reports of itself: what never changes, and a snapshot of the rest."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tier = Literal["device", "host", "disk"]
Task = Literal["generate", "embed"]
FallbackReason = Literal["absent", "failed", "memory", "logits"]
"""Why a device is not used: it does not come up, it or its driver failed, memory is short for it, or its
logits are not the CPU's."""


STALLED_SECONDS = 10.0
"""An engine that has been at one step for this long is not ready."""
SLOW_STEPS = 4
"""How many times longer than the longest step yet a step may take before it counts as stalled."""


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
    tiers: tuple[Tier, ...] = ("device",)
    """Where an adapter's weights can be."""
    device: DeviceInfo | None = None
    """Of the embedded engine alone; vLLM says its own."""


@dataclass(frozen=True, slots=True)
class EngineState:
    """A snapshot, cheap enough to take for every scrape and health check."""

    alive: bool
    progress: float
    """Seconds since the engine last completed a step or was idle; large means it hangs."""
    slowest_step: float = 0.0
    """Seconds of the longest step that the engine has completed."""
    loaded: bool = True
    """False while a base that is loaded on demand is not in memory."""
    restarting: bool = False
    """True while a dead engine is being started again."""
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
    made_way: int = 0
    """Running requests put back for another key or adapter, since start."""
    unread: int = 0
    """Answers ended because their clients did not read them, since start."""
    resident: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    """Adapter digest → where its weights are."""

    @property
    def ready(self) -> bool:
        """True if the engine lives and makes progress whenever it has something to do."""
        return self.alive and not self.exceeds(STALLED_SECONDS)

    def exceeds(self, seconds: float) -> bool:
        """True if the step under way takes longer than `seconds`, on a machine whose steps are short.

        If steps are slow there, so are those that go well: one may take `SLOW_STEPS` times the longest yet.
        """
        return self.progress >= max(seconds, SLOW_STEPS * self.slowest_step)
