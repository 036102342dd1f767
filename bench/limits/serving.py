"""Compute the limits that an operator asks about from a device's roofline: conversations, tokens per second,
cost.

All functions compute from sizes and datasheet figures; they measure nothing.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from bench.limits.devices import GpuSpec
from bench.limits.roofline import Model, decode_step, prefill, tokens_per_second

USABLE = 0.9
"""Fraction of a device's memory that weights, adapters and KV cache may use. The rest is for activations and
the driver.
"""
PEFT_TARGETS = ("q_proj", "v_proj")
"""Modules of a Mistral or Llama that PEFT gives a LoRA by default."""


@dataclass(frozen=True, slots=True)
class ServingLoad:
    """The load for which a device's limit is computed."""

    streams: int = 64
    """Number of concurrent conversations. If their KV cache does not fit into memory, the limits are computed
    for as many as fit.
    """
    prompt: int = 1536
    """Number of tokens in a prompt."""
    answer: int = 512
    """Number of tokens in an answer."""
    adapters: int = 2
    """Number of LoRA adapters that the conversations use in turn."""
    rank: int = 16
    targets: Sequence[str] = PEFT_TARGETS

    def __post_init__(self) -> None:
        for name, least in (("streams", 1), ("prompt", 1), ("answer", 1), ("adapters", 0), ("rank", 1)):
            if getattr(self, name) < least:
                raise ValueError(
                    f"the load has {name} {getattr(self, name)}, which is too small; use at least {least}"
                )

    @property
    def conversation(self) -> int:
        """Number of tokens in a conversation of full length: prompt and answer."""
        return self.prompt + self.answer


@dataclass(frozen=True, slots=True)
class ServingLimit:
    """The upper limits of a device under one load. No server can exceed them."""

    resident_bytes: float
    """Bytes of the weights of the base and the adapters."""
    conversations: int
    """Number of conversations of full length whose KV cache fits into memory beside the weights."""
    streams: int
    """Number of concurrent conversations for which rates and times are computed."""
    binds: str
    """The resource that limits the token rate: `memory` if not all conversations fit, else what limits a
    decode step, `bandwidth` or `arithmetic`.
    """
    step_bound: str
    """The resource that limits a decode step of all streams: `bandwidth` or `arithmetic`."""
    one_step_seconds: float
    """Seconds of a decode step with one stream."""
    step_seconds: float
    """Seconds of a decode step with all streams."""
    first_token_seconds: float
    """TTFT in seconds of a prompt that is computed while nothing else runs."""
    decode_tokens_per_second: float
    """Decode tokens per second of all streams together while no prefill runs."""
    tokens_per_second: float
    """Answer tokens per second of all streams together, if each computes a new prompt after every answer."""

    def cost_per_million(self, price: float) -> float | None:
        """Return the lowest possible cost of a million answer tokens at `price` an hour. None if the base
        does not fit the device.

        The cost is price / (3,600 s × tokens per second) × 1,000,000.
        """
        return price / (3600 * self.tokens_per_second) * 1e6 if self.tokens_per_second else None


def conversations(model: Model, memory: float, tokens: int, adapters: Sequence[int] = ()) -> int:
    """Return how many conversations of `tokens` tokens fit into `memory` bytes, beside the base and the
    adapters.

    This is (usable memory - weights - adapters) / (`tokens` × KV bytes of a token), rounded down; activations
    are not counted. The KV bytes of a token are 2 × layers × KV heads × head size × width (Kwon et al., 2023,
    section 3).
    """
    left = memory * USABLE - model.resident_bytes - sum(adapters) * model.width
    return max(0, math.floor(left / (tokens * model.kv_bytes)))


def serving_limit(model: Model, device: GpuSpec, load: ServingLoad) -> ServingLimit:
    """Return the limits of `device` under `load`. Raises `ValueError` if a target module of the adapters does
    not exist.
    """
    unknown = [target for target in load.targets if target not in model.modules()]
    if unknown:
        raise ValueError(
            f"the target module {unknown[0]!r} is unknown; use names of {', '.join(model.modules())}"
        )
    adapters = [model.adapter(load.rank, load.targets)] * load.adapters
    fit = conversations(model, device.memory * 1e9, load.conversation, adapters)
    streams = min(load.streams, fit)
    resident = model.resident_bytes + sum(adapters) * model.width
    context = load.prompt + load.answer / 2
    one = decode_step(model, 1, context, adapters)
    step = decode_step(model, max(1, streams), context, adapters)
    first = prefill(model, load.prompt, adapters[0] if adapters else 0.0)
    rate = tokens_per_second(model, device, streams, load.prompt, load.answer, adapters) if streams else 0.0
    return ServingLimit(
        resident_bytes=resident,
        conversations=fit,
        streams=streams,
        binds="memory" if fit < load.streams else step.bound(device),
        step_bound=step.bound(device),
        one_step_seconds=one.seconds(device),
        step_seconds=step.seconds(device),
        first_token_seconds=first.seconds(device),
        decode_tokens_per_second=streams / step.seconds(device),
        tokens_per_second=rate,
    )
