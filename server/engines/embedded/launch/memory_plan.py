"""What the embedded engine will take of the CPU's memory, known before anything is loaded.

The figures follow what ONNX Runtime does with a fused graph on the CPU: the weights of products are packed
into memory of their own, after which the mapped file is let go of; the embedding and the tables of positions
stay mapped and take memory as they are touched; keys and values take it as they are written. A plan is the
most that each can come to.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from adapters.lora.manifest import Adapter
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.quantize import BITS, BLOCK, Quantize
from server.engines.embedded.model.variants import FUSED
from server.engines.embedded.runners.available import MIB, format_bytes
from server.engines.embedded.scheduling.limits import SchedulerLimits

PROGRAM = 256 * MIB
"""Python, ONNX Runtime, the tokenizer and the server."""
BLOCK_OVERHEAD = 8
"""Bytes that a block has in ONNX Runtime's packed weights beside its codes: its scale and its sum."""
ARENA = 2.0
"""ONNX Runtime's arena grows by powers of two and keeps what it once took."""


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One line of a budget."""

    name: str
    size: int
    """Bytes."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """What is needed, and what there is."""

    parts: tuple[MemoryPart, ...]
    available: int
    """Bytes that are free."""

    @property
    def size(self) -> int:
        """Bytes of all parts."""
        return sum(part.size for part in self.parts)

    @property
    def fits(self) -> bool:
        """Whether there is room for all of it."""
        return self.size <= self.available

    def lines(self) -> list[str]:
        """For people: the sum, then each part."""
        width = max(len(part.name) for part in self.parts)
        size, available = format_bytes(self.size), format_bytes(self.available)
        head = f"memory plan: up to {size} of the {available} that are free"
        return [
            head,
            *(
                f"  {part.name:<{width}}  {format_bytes(part.size):>9}  {part.note}".rstrip()
                for part in self.parts
            ),
        ]


def plan_memory(
    config: ModelConfig,
    limits: SchedulerLimits,
    method: Quantize,
    adapters: Sequence[Adapter],
    available: int,
    *,
    bfloat16: bool = False,
) -> MemoryPlan:
    """The plan for a graph whose weights are held by `method`, with `adapters` resident.

    `bfloat16`: prompts are computed so, with a copy of the weights.
    """
    tables = config.context * (config.head_dim if config.rope is not None else config.hidden)
    mapped = 4 * (config.vocabulary * config.hidden + tables)
    kv = limits.kv_tokens * token_bytes(config)
    step = f"{limits.max_num_batched_tokens} tokens a step"
    parts = (
        MemoryPart("weights", weight_bytes(config, method), "float32" if method == "none" else method),
        *([MemoryPart("weights for prompts", 2 * _weights(config), "bfloat16")] if bfloat16 else []),
        MemoryPart("embedding", mapped, "mapped; only what is used counts"),
        MemoryPart("keys and values", kv, f"{limits.kv_tokens:,} tokens"),
        MemoryPart(
            "adapters", sum(adapter_bytes(config, adapter) for adapter in adapters), f"{len(adapters)}"
        ),
        MemoryPart("activations", activation_bytes(config, limits), step),
        MemoryPart("program", PROGRAM),
    )
    return MemoryPlan(parts, available)


def token_bytes(config: ModelConfig) -> int:
    """Bytes of one token's keys and values."""
    return config.layers * 2 * config.kv_width * 4


def weight_bytes(config: ModelConfig, method: Quantize) -> int:
    """Bytes of all products' weights as ONNX Runtime packs them."""
    every, head = _weights(config), config.vocabulary * config.hidden
    if method == "none":
        return 4 * every
    if method == "w8a8":
        return every - head + int(head * _packed(8, BLOCK))
    bits = BITS[method]
    return int(every * _packed(bits, FUSED.block_size(config.hidden, bits)))


def _weights(config: ModelConfig) -> int:
    """Numbers in the weights of all products, the head among them."""
    layers = config.layers * sum(out * features for out, features in config.shapes.values())
    return layers + config.vocabulary * config.hidden


def adapter_bytes(config: ModelConfig, adapter: Adapter) -> int:
    """Bytes of an adapter: its own arrays, and a copy beside others for batches.

    In the copy all modules that one product computes share an input and an output as wide as all of them.
    """
    shapes = config.shapes
    own = sum(adapter.rank * sum(shapes[target]) for target in adapter.targets)
    wide = 0
    for modules in config.groups.values():
        rank = adapter.rank * sum(module in adapter.targets for module in modules)
        wide += rank * (shapes[modules[0]][1] + sum(shapes[module][0] for module in modules))
    return 4 * config.layers * (own + wide)


def activation_bytes(config: ModelConfig, limits: SchedulerLimits) -> int:
    """Bytes of what a step computes on the way, and of its logits."""
    attention = 2 * (config.query_width + 2 * config.kv_width)
    widest = 4 * config.hidden + attention + 3 * config.intermediate
    logits = 4 * limits.max_num_seqs * config.vocabulary
    return int(ARENA * 4 * limits.max_num_batched_tokens * widest) + 2 * logits


def _packed(bits: int, block: int) -> float:
    """Bytes of one weight."""
    return bits / 8 + BLOCK_OVERHEAD / block
