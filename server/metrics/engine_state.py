"""Defines what an engine reports about itself: properties that never change, and a snapshot of its state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

Tier = Literal["device", "host", "disk"]
Task = Literal["generate", "embed"]
FallbackReason = Literal["absent", "failed", "memory", "logits"]
"""Why a device cannot be used. `absent`: it did not start. `failed`: the device or its driver failed.
`memory`: it has too little memory. `logits`: its results differ from the CPU's.
"""


STALLED_SECONDS = 10.0
"""Seconds that a step may take before the engine is reported as not ready (but see `SLOW_STEPS`)."""
SLOW_STEPS = 4
"""A step counts as stalled only if it takes this many times as long as the longest step so far."""


@dataclass(frozen=True, slots=True)
class DeviceFallback:
    """Why the engine uses the CPU although the setting `auto` preferred another device."""

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
    """Name of ONNX Runtime's execution provider, as the open session reports it."""
    precision: str
    """Number format of the base's weights: `fp32`, `fp16`, `int8` or `int4`."""
    fallback: DeviceFallback | None = None


@dataclass(frozen=True, slots=True)
class EngineInfo:
    """Properties of an engine that never change."""

    name: str
    """Name of the engine: `embedded` or `vllm`."""
    base_digest: str
    context: int
    """Maximum number of tokens of prompt and answer together."""
    vocabulary: int
    blends: bool
    """True if a request can blend several adapters with weights."""
    max_adapters: int
    """Maximum number of adapters in the engine at once."""
    task: Task = "generate"
    """What the base is for: generating text, or embeddings. Requests for the other task raise
    `UnsupportedRequestError`.
    """
    tiers: tuple[Tier, ...] = ("device",)
    """The places in which an adapter's weights can be: device memory, host memory or the disk."""
    device: DeviceInfo | None = None
    """Device of the embedded engine; None for vLLM, which reports its device itself."""
    kv_block: int = 0
    """Number of tokens in a block of the KV cache. 0 if the engine exports `vllm:cache_config_info`
    itself.
    """
    at_once: int | None = None
    """Maximum number of adapters in one step of the engine, if that is less than `max_adapters`; else
    None.
    """

    @property
    def device_adapters(self) -> int:
        """Maximum number of adapters in the device's memory at once."""
        return self.max_adapters if self.at_once is None else self.at_once


@dataclass(frozen=True, slots=True)
class EngineState:
    """A snapshot of an engine's state, cheap enough to take for every scrape and health check."""

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
    """Number of running requests that were preempted because the KV cache was full, since the start."""
    made_way: int = 0
    """Number of running requests that were preempted for another API key or adapter, since the start."""
    unread: int = 0
    """Number of answers cut off because their clients did not read them, since the start."""
    resident: Mapping[str, Tier] = field(default_factory=dict[str, Tier])
    """Maps each adapter's digest to the place of its weights: `device`, `host` or `disk`."""

    @property
    def ready(self) -> bool:
        """True if the engine is alive and its current step, if any, has not stalled."""
        return self.alive and not self.exceeds(STALLED_SECONDS)

    def exceeds(self, seconds: float) -> bool:
        """True if the current step has taken too long: more than `seconds`, and more than `SLOW_STEPS` times
        the longest step so far.

        The second limit is for machines on which all steps are slow.
        """
        return self.progress >= max(seconds, SLOW_STEPS * self.slowest_step)
