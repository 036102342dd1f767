"""What a GPU's memory and arithmetic allow: a roofline for decoding and for prefill, from a `config.json`.

The roofline is that of Williams, Waterman and Patterson (2009): no step is faster than its bytes over the
memory's bandwidth, nor than its operations over the peak rate. Counted are the weights, the keys and values
and the adapters; activations, norms and the sampler are left out, so the limit is never too low.

A device that the table does not hold has no limit here: `find_device` returns `None`, and the caller says
"unknown".
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

TABLE_VERSION = 1
"""Raised whenever a figure of `DEVICES` changes, and kept in every result."""


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU by its vendor's datasheet."""

    name: str
    pattern: str
    """Regular expression over the whole name that `nvidia-smi` prints, without the leading `NVIDIA `."""
    bandwidth: float
    """Memory bandwidth, GB/s (10⁹ bytes)."""
    tflops: float
    """Dense bfloat16 with float32 accumulation, TFLOP/s; on the T4, which has no bfloat16, float16."""
    memory: float
    """GB as the vendor counts them."""
    source: str


DEVICES = (
    GpuSpec("H200 SXM", r"H200", 4800, 989, 141, "NVIDIA H200 datasheet: 1,979 with sparsity, 4.8 TB/s"),
    GpuSpec(
        "H200 NVL", r"H200 NVL", 4800, 835.5, 141, "NVIDIA H200 datasheet: 1,671 with sparsity, 4.8 TB/s"
    ),
    GpuSpec("H100 SXM", r"H100 80GB HBM3", 3350, 989, 80, "NVIDIA H100 datasheet: 1,979 sparse, 3.35 TB/s"),
    GpuSpec("H100 NVL", r"H100 NVL", 3900, 835.5, 94, "NVIDIA H100 datasheet: 1,671 sparse, 3.9 TB/s"),
    GpuSpec("H100 PCIe", r"H100 PCIe", 2000, 756, 80, "NVIDIA H100 PCIe product brief: 1,513 sparse, 2 TB/s"),
    GpuSpec("A100 80GB SXM", r"A100-SXM4-80GB", 2039, 312, 80, "NVIDIA A100 datasheet: 312, 2,039 GB/s"),
    GpuSpec(
        "A100 80GB PCIe",
        r"A100 80GB PCIe|A100-PCIE-80GB",
        1935,
        312,
        80,
        "NVIDIA A100 datasheet: 312, 1,935 GB/s",
    ),
    GpuSpec(
        "A100 40GB", r"A100-(SXM4|PCIE)-40GB", 1555, 312, 40, "NVIDIA A100 40GB datasheet: 312, 1,555 GB/s"
    ),
    GpuSpec("L40S", r"L40S", 864, 362, 48, "NVIDIA L40S datasheet: 362.05, 864 GB/s"),
    GpuSpec("L4", r"L4", 300, 121, 24, "NVIDIA L4 datasheet: 242 with sparsity, 300 GB/s"),
    GpuSpec(
        "RTX 4090", r"GeForce RTX 4090", 1008, 165.2, 24, "NVIDIA Ada whitepaper 2.1: 165.2 dense, 1,008 GB/s"
    ),
    GpuSpec("T4", r"(Tesla )?T4", 320, 65, 16, "NVIDIA T4 datasheet: 65 float16, 320 GB/s"),
)


def find_device(name: str) -> GpuSpec | None:
    """The device that `nvidia-smi` calls `name`; `None` for one that is not in the table (or part of one)."""
    bare = name.removeprefix("NVIDIA ").strip()
    return next((device for device in DEVICES if re.fullmatch(device.pattern, bare)), None)


@dataclass(frozen=True, slots=True)
class StepCost:
    """Bytes that must pass the memory, and floating-point operations."""

    bytes: float
    flops: float

    def seconds(self, device: GpuSpec) -> float:
        """The least time that `device` can take."""
        return max(self.bytes / (device.bandwidth * 1e9), self.flops / (device.tflops * 1e12))

    def bound(self, device: GpuSpec) -> str:
        """Which of the two limits holds: `bandwidth` or `arithmetic`."""
        over_memory = self.bytes / (device.bandwidth * 1e9)
        return "bandwidth" if over_memory >= self.flops / (device.tflops * 1e12) else "arithmetic"


@dataclass(frozen=True, slots=True)
class Model:
    """The sizes of a Mistral- or Llama-family decoder that its cost depends on."""

    layers: int
    hidden: int
    heads: int
    kv_heads: int
    head_dim: int
    inner: int
    vocabulary: int
    width: int = 2
    """Bytes of a weight, and of a number in the KV cache."""

    @classmethod
    def read(cls, config: Mapping[str, Any], width: int = 2) -> Model:
        """From a `config.json`; raises `KeyError` where it lacks a size."""
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
        )

    def modules(self) -> dict[str, tuple[int, int]]:
        """Linear module of a layer → (out features, in features)."""
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
        """Weights of the layers' matrices."""
        return self.layers * sum(outs * ins for outs, ins in self.modules().values())

    @property
    def head(self) -> int:
        """Weights of the output matrix; the embedding is only looked up."""
        return self.vocabulary * self.hidden

    @property
    def kv_bytes(self) -> int:
        """Bytes of one token's keys and values in all layers."""
        return 2 * self.layers * self.kv_heads * self.head_dim * self.width

    @property
    def attention_flops(self) -> int:
        """Operations of one query token over one token of context: its scores and its weighted sum."""
        return 4 * self.layers * self.heads * self.head_dim

    def adapter(self, rank: int, targets: Sequence[str]) -> int:
        """Weights of a LoRA: rank × (in + out) for each target in each layer."""
        modules = self.modules()
        return self.layers * rank * sum(sum(modules[target]) for target in targets)


def decode_step(model: Model, streams: int, context: float, adapters: Sequence[int] = ()) -> StepCost:
    """One token for each of `streams` sequences that have `context` tokens each.

    `adapters` holds the weights of each adapter in turn among the streams. Those in use are read once a
    step; every row passes one.
    """
    mean = sum(adapters) / len(adapters) if adapters else 0.0
    weights = model.linear + model.head + mean * min(streams, len(adapters))
    flops = 2 * (model.linear + model.head + mean) + model.attention_flops * context
    return StepCost(weights * model.width + streams * context * model.kv_bytes, streams * flops)


def prefill(model: Model, tokens: int, adapter: float = 0.0) -> StepCost:
    """A prompt of `tokens`, causal, with the logits of its last token; `adapter` weights of its LoRA."""
    flops = 2 * tokens * (model.linear + adapter) + 2 * model.head + model.attention_flops * tokens**2 / 2
    weights = model.linear + model.head + adapter
    return StepCost(weights * model.width + tokens * model.kv_bytes, flops)


def tokens_per_second(
    model: Model, device: GpuSpec, streams: int, prompt: int, tokens: int, adapters: Sequence[int] = ()
) -> float:
    """The most output tokens per second of `streams` closed-loop streams, `prompt` in and `tokens` out.

    One answer of every stream takes at least all operations at the peak rate, even where prompts share their
    steps with decoding, and at least one prompt alone plus `tokens - 1` decode steps one after another.
    """
    first = prefill(model, prompt, sum(adapters) / len(adapters) if adapters else 0.0)
    step = decode_step(model, streams, prompt + tokens / 2, adapters)
    arithmetic = (streams * first.flops + (tokens - 1) * step.flops) / (device.tflops * 1e12)
    in_turn = first.seconds(device) + (tokens - 1) * step.seconds(device)
    return streams * tokens / max(arithmetic, in_turn)
