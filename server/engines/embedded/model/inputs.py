"""Computes the inputs of the portable graph (standard ONNX operators) on the CPU: token ids, positions, the
attention mask, and the KV cache positions to write.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from server.engines.embedded.model.config import ModelConfig

UNSEEN = -1e4
"""Value added to the attention scores of masked positions. It is low enough to make their weight 0, and fits
into float16.
"""


@dataclass(frozen=True, slots=True)
class InputBatch:
    """One batch for the portable graph: token ids, their positions, and the KV cache positions to write; each
    [slots, length].

    A slot without a sequence computes token 0. This token attends only to itself, and its key and value are
    written to the slot's last position, which is never read. A sequence shorter than `length` is padded with
    its last token, which writes the same key and value again.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    idle: NDArray[np.bool_]
    """True for batch slots without a sequence; shape [slots]."""

    @classmethod
    def idle_rows(cls, rows: int, length: int, memory: int) -> InputBatch:
        """Create a batch whose `rows` slots have no sequence, for a KV cache with `memory` positions per
        slot.
        """
        tokens = np.zeros((rows, length), dtype=np.int64)
        return cls(tokens, tokens.copy(), np.full_like(tokens, memory - 1), np.ones(rows, dtype=np.bool_))

    def place(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Put the `tokens` of a sequence into batch slot `row`. The first token has position `start`."""
        count = len(tokens)
        self.tokens[row, :count], self.tokens[row, count:] = tokens, tokens[-1]
        self.positions[row] = np.minimum(np.arange(self.tokens.shape[1]), count - 1) + start
        self.targets[row] = self.positions[row]
        self.idle[row] = False


def host_inputs(
    config: ModelConfig, dtype: DTypeLike, batch: InputBatch, memory: int
) -> dict[str, NDArray[np.generic]]:
    """Compute all inputs of the portable graph by name, except adapters and `indices`.

    `memory` is the number of KV cache positions per slot.
    """
    return {
        "input_ids": batch.tokens,
        "positions": batch.positions,
        "order": np.arange(batch.tokens.size, dtype=np.int64).reshape(batch.tokens.shape),
        "mask": _mask(config, dtype, batch, memory),
        "scatter": _scatter(config, batch.targets),
    }


def _mask(config: ModelConfig, dtype: DTypeLike, batch: InputBatch, memory: int) -> NDArray[np.generic]:
    """Compute the attention mask [slots, 1, heads per KV head x length, memory]: 0 if visible, very negative
    if not.
    """
    keys, last = np.arange(memory), batch.targets[:, :, None]
    seen = keys <= last
    if config.sliding_window is not None:
        seen &= keys > last - config.sliding_window
    seen[batch.idle] = keys == memory - 1
    mask = np.where(seen, 0.0, UNSEEN).astype(dtype)
    return np.tile(mask[:, None], (1, 1, config.heads // config.kv_heads, 1))


def _scatter(config: ModelConfig, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """Compute [slots, KV heads, length, 3]: the slot, KV head and position in the KV cache to which each new
    key is written.
    """
    rows, length = targets.shape
    scatter = np.empty((rows, config.kv_heads, length, 3), dtype=np.int64)
    scatter[..., 0] = np.arange(rows)[:, None, None]
    scatter[..., 1] = np.arange(config.kv_heads)[:, None]
    scatter[..., 2] = targets[:, None]
    return scatter
