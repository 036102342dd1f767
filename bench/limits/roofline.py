"""Compute the shortest time in which a device can do a decode step or a prefill, by the roofline model.

No step is faster than its bytes divided by the memory bandwidth, or its operations divided by the peak
arithmetic rate (Williams, Waterman and Patterson, 2009). Weights, keys and values, and adapters are counted,
with the sizes in a `config.json`. Activations, norms and the sampler are left out, so the limit is never too
low.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bench.limits.devices import GpuSpec


@dataclass(frozen=True, slots=True)
class StepCost:
    """The work of a decode step or a prefill: bytes read from memory, and floating-point operations."""

    bytes: float
    flops: float

    def seconds(self, device: GpuSpec) -> float:
        """Return the shortest time, in seconds, in which `device` can do this work."""
        return max(self.bytes / (device.bandwidth * 1e9), self.flops / (device.tflops * 1e12))

    def bound(self, device: GpuSpec) -> str:
        """Return what limits this work on `device`: `bandwidth` or `arithmetic`."""
        over_memory = self.bytes / (device.bandwidth * 1e9)
        return "bandwidth" if over_memory >= self.flops / (device.tflops * 1e12) else "arithmetic"


@dataclass(frozen=True, slots=True)
class Model:
    """The sizes of a Mistral- or Llama-like decoder that determine the cost of a step."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    width: int = 2
    """Bytes of an unquantized weight, and of a weight of an adapter."""
    packed: float | None = None
    """Bytes of a weight in the layers' matrices, scales included, if they are quantized. None if they are
    not.
    """
    kv_width: int | None = None
    """Bytes of a number in the KV cache. None: as many as `width`, the bytes of an unquantized weight."""
    tied: bool = False
    """True if the output matrix and the embedding are the same weights."""

    @classmethod
    def read(cls, config: Mapping[str, Any], width: int = 2) -> Model:
        """Read the sizes from the contents of a `config.json`. Raises `KeyError` if a size is missing."""
        heads = config["num_attention_heads"]
        return cls(
            config["num_hidden_layers"],
            config["hidden_size"],
            heads,
            config.get("num_key_value_heads") or heads,
            config.get("head_dim") or config["hidden_size"] // heads,
            config["intermediate_size"],
            config["vocab_size"],
            width,
            tied=bool(config.get("tie_word_embeddings", False)),
        )

    def modules(self) -> dict[str, tuple[int, int]]:
        """Map each linear module of a layer to its number of output features and of input features."""
        queries, keys = self.heads * self.head_dim, self.kv_heads * self.head_dim
        return {
            "q_proj": (queries, self.hidden),
            "k_proj": (keys, self.hidden),
            "v_proj": (keys, self.hidden),
            "o_proj": (self.hidden, queries),
            "gate_proj": (self.inner, self.hidden),
            "up_proj": (self.inner, self.hidden),
            "down_proj": (self.hidden, self.inner),
        }

    @property
    def linear(self) -> int:
        """Number of weights in the matrices of all layers."""
        return self.layers * sum(outs * ins for outs, ins in self.modules().values())

    @property
    def head(self) -> int:
        """Number of weights in the output matrix. The embedding is not counted, because a step reads only a
        row of it per token.
        """
        return self.vocabulary * self.hidden

    @property
    def kv_bytes(self) -> int:
        """Bytes of the KV cache that one token needs, in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * (self.kv_width or self.width)

    @property
    def step_bytes(self) -> float:
        """Bytes of the weights that every decode step reads: the layers' matrices and the output matrix."""
        return self.linear * (self.packed or self.width) + self.head * self.width

    @property
    def resident_bytes(self) -> float:
        """Bytes of all weights in memory: those that a step reads, and the embedding unless it is tied to the
        output matrix.
        """
        return self.step_bytes + (0 if self.tied else self.head * self.width)

    @property
    def attention_flops(self) -> int:
        """Operations of attention between one query token and one context token in all layers: the score and
        the weighted sum.
        """
        return 4 * self.layers * self.heads * self.head_dim

    def adapter(self, rank: int, targets: Sequence[str]) -> int:
        """Number of weights of a LoRA adapter: rank × (inputs + outputs) for each target module in each
        layer.
        """
        modules = self.modules()
        return self.layers * rank * sum(sum(modules[target]) for target in targets)


def decode_step(model: Model, streams: int, context: float, adapters: Sequence[int] = ()) -> StepCost:
    """Return the work of a decode step: one token for each of `streams` sequences with `context` tokens each.

    `adapters` holds the number of weights of each adapter; the sequences use the adapters in turn. A step
    reads the weights of each adapter in use once, and computes one adapter for every sequence.
    """
    mean = sum(adapters) / len(adapters) if adapters else 0.0
    weights = model.step_bytes + mean * min(streams, len(adapters)) * model.width
    flops = 2 * (model.linear + model.head + mean) + model.attention_flops * context
    return StepCost(weights + streams * context * model.kv_bytes, streams * flops)


def prefill(model: Model, tokens: int, adapter: float = 0.0) -> StepCost:
    """Return the work of the prefill of `tokens` prompt tokens, with logits for the last token. `adapter` is
    the number of weights of the LoRA adapter.
    """
    flops = 2 * tokens * (model.linear + adapter) + 2 * model.head + model.attention_flops * tokens**2 / 2
    weights = model.step_bytes + adapter * model.width
    return StepCost(weights + tokens * model.kv_bytes, flops)


def tokens_per_second(
    model: Model, device: GpuSpec, streams: int, prompt: int, tokens: int, adapters: Sequence[int] = ()
) -> float:
    """Return the highest possible rate of answer tokens per second of `streams` closed-loop streams, with
    `prompt` prompt tokens and `tokens` answer tokens per request.

    The time for one answer of every stream has two lower bounds, and the larger counts: all operations at the
    peak arithmetic rate, and one prefill followed by `tokens - 1` decode steps.
    """
    first = prefill(model, prompt, sum(adapters) / len(adapters) if adapters else 0.0)
    step = decode_step(model, streams, prompt + tokens / 2, adapters)
    arithmetic = (streams * first.flops + (tokens - 1) * step.flops) / (device.tflops * 1e12)
    in_turn = first.seconds(device) + (tokens - 1) * step.seconds(device)
    return streams * tokens / max(arithmetic, in_turn)
