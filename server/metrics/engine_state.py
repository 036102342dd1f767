"""Defines what an engine reports about itself: properties that never change, and a snapshot of its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tier = Literal["device", "host", "disk"]
Task = Literal["generate", "embed"]
FallbackReason = Literal["absent", "failed", "memory", "logits"]
"""Why a device is not used. `absent`: it did not start. `failed`: it or its driver failed. `memory`: it has
too little. `logits`: its results differ from the CPU's."""


STALLED_SECONDS = 10.0
"""Seconds after which an engine that is still in the same step is reported as not ready."""
SLOW_STEPS = 4
"""A step counts as stalled if it takes this many times as long as the longest step so far."""


@dataclass(frozen=True, slots=True)
class DeviceFallback:
    """Why the CPU is used although `auto` preferred another device."""

    device: str
    reason: FallbackReason
    message: str
    """The reason as text, safe to show to clients."""


@dataclass(frozen=True, slots=True)
class DeviceInfo:
    """The device that an engine computes on."""

    name: str
    """Name of the device: `cpu`, `directml`, `webgpu` or `windowsml`."""
    provider: str
    """The device's name in ONNX Runtime, as the open session reports it."""
    precision: str
    """Number format of the base's weights: `fp32`, `fp16`, `int8` or `int4`."""
    fallback: DeviceFallback | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Constant properties of an engine."""

    name: str
    """Name of the engine: `embedded` or `vllm`."""
    base_digest: str
    context: int
    """Maximum context: tokens of prompt and answer together."""
    vocabulary: int
    blends: bool
    """True if a request can blend several adapters with weights."""
    max_adapters: int
    """Maximum number of adapters in the engine at once."""
    task: Task = "generate"
    """The task that the base is for: to generate or to embed. The other raises `UnsupportedRequestError`."""
    tiers: tuple[Tier, ...] = ("device",)
    """The places that can hold an adapter's weights: device memory, host memory or the disk."""
    device: DeviceInfo | None = None
    """Device of the embedded engine; None for vLLM, which reports its own."""
    kv_block: int = 0
    """Number of tokens in a block of KV memory. 0 if the engine exports `vllm:cache_config_info` itself."""
    at_once: int | None = None
    """Maximum number of adapters in one step, if that is less than `max_adapters`."""

    @property
    def device_adapters(self) -> int:
        """Maximum number of adapters in the device's memory at once."""
        return self.max_adapters if self.at_once is None else self.at_once


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
    """Number of running requests by adapter digest; the empty digest is the base."""
    waiting: Mapping[str, int] = field(default_factory=dict[str, int])
    kv_tokens: int = 0
    """Tokens in the KV cache, including cached prefixes."""
    kv_capacity: int = 0
    """Maximum number of tokens in the KV cache."""
    kv_cached: int = 0
    """Part of `kv_tokens` that is only cached for reuse and freed on demand."""
    prefix_queries: int = 0
    """Number of prompt tokens looked up in the prefix cache, since the start."""
    prefix_hits: int = 0
    """Number of prompt tokens found in the prefix cache, since the start."""
    preemptions: int = 0
    """Number of preemptions because the KV cache was full, since the start."""
    made_way: int = 0
    """Number of preemptions for another key or adapter, since the start."""
    unread: int = 0
    """Number of answers cut off because their clients did not read them, since the start."""
    resident: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    """Says for each adapter digest where its weights are."""

    @property
    def ready(self) -> bool:
        """True if the engine lives and makes progress whenever it has something to do."""
        return self.alive and not self.exceeds(STALLED_SECONDS)

    def exceeds(self, seconds: float) -> bool:
        """True if the current step has taken too long: more than `seconds`, and more than `SLOW_STEPS` times
        the longest step so far.

        The second limit is for machines on which all steps are slow.
        """
        return self.progress >= max(seconds, SLOW_STEPS * self.slowest_step)
