"""What a run of the portable graph takes from the host: tokens, positions, the mask, where keys go."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import DTypeLike, NDArray

from server.engines.embedded.model.config import ModelConfig

UNSEEN = -1e4
"""Added to the score of a position that may not be seen: nothing is left of it, and float16 holds it."""


@dataclass(frozen=True, slots=True)
class InputBatch:
    """Tokens [rows, length], their positions, and where in memory each goes.

    A row in which nothing is placed computes a token that sees itself alone and goes to the row's last
    position, which is never read. What is placed is filled up with its own last token: the same key is
    written twice to the same place.
    """

    tokens: NDArray[np.int64]
    positions: NDArray[np.int64]
    targets: NDArray[np.int64]
    idle: NDArray[np.bool_]
    """[rows]."""

    @classmethod
    def idle_rows(cls, rows: int, length: int, memory: int) -> InputBatch:
        """A batch of nothing, over rows of `memory` positions."""
        tokens = np.zeros((rows, length), dtype=np.int64)
        return cls(tokens, tokens.copy(), np.full_like(tokens, memory - 1), np.ones(rows, dtype=np.bool_))

    def place(self, row: int, tokens: Sequence[int], start: int) -> None:
        """Compute `tokens` at positions `start`… of a row."""
        count = len(tokens)
        self.tokens[row, :count], self.tokens[row, count:] = tokens, tokens[-1]
        self.positions[row] = np.minimum(np.arange(self.tokens.shape[1]), count - 1) + start
        self.targets[row] = self.positions[row]
        self.idle[row] = False


def host_inputs(
    config: ModelConfig, dtype: DTypeLike, batch: InputBatch, memory: int
) -> dict[str, NDArray[np.generic]]:
    """Graph input → array, but for adapters and indices; `memory`: positions of each row."""
    return {
        "input_ids": batch.tokens,
        "positions": batch.positions,
        "order": np.arange(batch.tokens.size, dtype=np.int64).reshape(batch.tokens.shape),
        "mask": _mask(config, dtype, batch, memory),
        "scatter": _scatter(config, batch.targets),
    }


def _mask(config: ModelConfig, dtype: DTypeLike, batch: InputBatch, memory: int) -> NDArray[np.generic]:
    """[rows, 1, heads per KV head x length, memory]."""
    keys, last = np.arange(memory), batch.targets[:, :, None]
    seen = keys <= last
    if config.sliding_window is not None:
        seen &= keys > last - config.sliding_window
    seen[batch.idle] = keys == memory - 1
    mask = np.where(seen, 0.0, UNSEEN).astype(dtype)
    return np.tile(mask[:, None], (1, 1, config.heads // config.kv_heads, 1))


def _scatter(config: ModelConfig, targets: NDArray[np.int64]) -> NDArray[np.int64]:
    """[rows, KV heads, length, 3]: row, KV head and position that each new key goes to."""
    rows, length = targets.shape
    scatter = np.empty((rows, config.kv_heads, length, 3), dtype=np.int64)
    scatter[..., 0] = np.arange(rows)[:, None, None]
    scatter[..., 1] = np.arange(config.kv_heads)[:, None]
    scatter[..., 2] = targets[:, None]
    return scatter
