"""Plans how much CPU memory the embedded engine will take at most, before anything is loaded.

The figures follow how ONNX Runtime treats a fused graph on the CPU. It repacks the weights of matrix products
into its own memory and then unmaps their file. The embedding and the position tables stay memory-mapped, and
take memory only when they are read. The KV cache takes memory only when it is written. A plan counts the
maximum of every part.
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
"""Bytes that the process itself needs: Python, ONNX Runtime, the tokenizer and the server."""
BLOCK_OVERHEAD = 8
"""Bytes that ONNX Runtime adds to each block of quantised weights: the block's scale and its sum."""
ARENA = 2.0
"""Factor by which the memory for activations is multiplied, since ONNX Runtime's arena grows by powers of two
and never shrinks.
"""


@dataclass(frozen=True, slots=True)
class MemoryPart:
    """One line of the memory plan, such as weights or KV cache."""

    name: str
    size: int
    """Bytes that this part of the plan (such as weights or KV cache) needs."""
    note: str = ""


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """The memory that the engine needs for weights, KV cache, adapters and so on, and the memory that is
    free.
    """

    parts: tuple[MemoryPart, ...]
    available: int
    """Bytes that were free on this machine when the plan was made."""

    @property
    def size(self) -> int:
        """Bytes that all parts of the plan need together."""
        return sum(part.size for part in self.parts)

    @property
    def fits(self) -> bool:
        """True if all parts together fit into the free memory."""
        return self.size <= self.available

    def lines(self) -> list[str]:
        """Return the plan as lines of text: the total, then one line for each part."""
        width = max(len(part.name) for part in self.parts)
        size, available = format_bytes(self.size), format_bytes(self.available)
        head = f"memory plan: up to {size} of {available} free memory"
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
    """Plan the CPU memory of a base model whose weights are quantised by `method`, with `adapters` loaded.

    With `bfloat16`, prompts are computed in bfloat16, which needs a second copy of the weights.
    """
    tables = config.context * (config.head_dim if config.rope is not None else config.hidden)
    mapped = 4 * (config.vocabulary * config.hidden + tables)
    kv = limits.kv_tokens * token_bytes(config)
    step = f"{limits.max_num_batched_tokens} tokens per engine step"
    parts = (
        MemoryPart("weights", weight_bytes(config, method), "float32" if method == "none" else method),
        *([MemoryPart("weights for prefill", 2 * _weights(config), "bfloat16")] if bfloat16 else []),
        MemoryPart("embedding", mapped, "memory-mapped; only pages in use count"),
        MemoryPart("KV cache", kv, f"{limits.kv_tokens:,} tokens"),
        MemoryPart(
            "adapters", sum(adapter_bytes(config, adapter) for adapter in adapters), f"{len(adapters)}"
        ),
        MemoryPart("activations", activation_bytes(config, limits), step),
        MemoryPart("program", PROGRAM),
    )
    return MemoryPlan(parts, available)


def token_bytes(config: ModelConfig) -> int:
    """Return the bytes that one token takes in the KV cache: its keys and values of all layers, in
    float32.
    """
    return config.layers * 2 * config.kv_width * 4


def weight_bytes(config: ModelConfig, method: Quantize) -> int:
    """Return the bytes that the weights of all matrix products take after ONNX Runtime has packed them."""
    every, head = _weights(config), config.vocabulary * config.hidden
    if method == "none":
        return 4 * every
    if method == "w8a8":
        return every - head + int(head * _packed(8, BLOCK))
    bits = BITS[method]
    return int(every * _packed(bits, FUSED.block_size(config.hidden, bits)))


def _weights(config: ModelConfig) -> int:
    """Return the number of weights in all matrix products, including the output head."""
    layers = config.layers * sum(out * features for out, features in config.shapes.values())
    return layers + config.vocabulary * config.hidden


def adapter_bytes(config: ModelConfig, adapter: Adapter) -> int:
    """Return the bytes that a loaded adapter takes: its own arrays, and its columns in the arrays that pack
    adapters for a batch.

    In the packed arrays, modules that one matrix product computes (such as q, k and v) have a common output,
    as wide as all of them together.
    """
    shapes = config.shapes
    own = sum(adapter.rank * sum(shapes[target]) for target in adapter.targets)
    wide = 0
    for modules in config.groups.values():
        rank = adapter.rank * sum(module in adapter.targets for module in modules)
        wide += rank * (shapes[modules[0]][1] + sum(shapes[module][0] for module in modules))
    return 4 * config.layers * (own + wide)


def activation_bytes(config: ModelConfig, limits: SchedulerLimits) -> int:
    """Return the bytes of the intermediate results and the logits of one engine step."""
    attention = 2 * (config.query_width + 2 * config.kv_width)
    widest = 4 * config.hidden + attention + 3 * config.intermediate
    logits = 4 * limits.max_num_seqs * config.vocabulary
    return int(ARENA * 4 * limits.max_num_batched_tokens * widest) + 2 * logits


def _packed(bits: int, block: int) -> float:
    """Return the average bytes of a quantised weight of `bits` bits, including the scale and sum of its block
    of weights.
    """
    return bits / 8 + BLOCK_OVERHEAD / block
