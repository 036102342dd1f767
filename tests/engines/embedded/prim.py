"""Runs the `prim` variant on the CPU as a device provider would: fixed shapes, ping-pong KV memory."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.weights import AdapterWeights
from server.engines.embedded.cache import BuiltGraph
from server.engines.embedded.graph import GROUPS
from server.engines.embedded.lora import Pack
from server.request import Voice


class PrimRunner:
    """One batch of `rows` rows of `positions` positions, computed in steps of any one length."""

    def __init__(
        self, graph: BuiltGraph, rows: int, positions: int, adapters: dict[str, AdapterWeights]
    ) -> None:
        self._config, self._rows, self._positions = graph.config, rows, positions
        self._float = np.dtype("float16" if graph.dtype == "fp16" else "float32")
        self._graph = graph
        self._pack = Pack(graph.config, adapters, self._float.name)
        self._sessions: dict[tuple[int, int], ort.InferenceSession] = {}
        shape = (rows, graph.config.kv_heads, positions, graph.config.head_dim)
        self._past: dict[str, NDArray[np.generic]] = {
            f"{part}.{layer}": np.zeros(shape, self._float)
            for layer in range(graph.config.layers)
            for part in "kv"
        }

    def run(
        self,
        tokens: NDArray[np.int64],
        starts: Sequence[int],
        voices: Sequence[Voice],
        indices: Sequence[int],
    ) -> NDArray[np.float32]:
        """Compute tokens [rows, S] at positions `starts`…; logits [len(indices), vocabulary]."""
        length = tokens.shape[1]
        positions = np.array(starts)[:, None] + np.arange(length)
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": tokens,
            "positions": positions,
            "indices": np.array(indices, dtype=np.int64),
            "mask": self._mask(positions),
            "scatter": self._scatter(positions),
            **self._pack.arrays,
            **{f"past_{name}": value for name, value in self._past.items()},
        }
        masks = self._pack.masks(voices)
        for group, width in self._pack.widths.items():
            mask = masks.get(group, np.zeros((self._rows, width), self._float))
            feeds[f"lora_mask.{group}"] = mask.reshape(self._rows, 1, width)
        names = ["logits", *(f"present_{name}" for name in self._past)]
        logits, *present = self._session(length, len(indices)).run(names, feeds)
        self._past = dict(zip(self._past, map(np.asarray, present), strict=True))
        return np.asarray(logits)

    def _session(self, length: int, count: int) -> ort.InferenceSession:
        """A session of fixed shapes, as a device provider gets it."""
        if (length, count) not in self._sessions:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.intra_op_num_threads = 1
            heads = self._config.heads // self._config.kv_heads
            sizes = {"B": self._rows, "S": length, "T": self._positions, "GS": heads * length, "M": count}
            sizes |= {f"R_{group}": self._pack.widths[group] for group in GROUPS}
            for name, size in sizes.items():
                options.add_free_dimension_override_by_name(name, size)
            path = str(self._graph.path)
            session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
            self._sessions[length, count] = session
        return self._sessions[length, count]

    def _mask(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        keys = np.arange(self._positions)[None, None, :]
        seen = keys <= positions[:, :, None]
        if self._config.sliding_window is not None:
            seen &= keys > positions[:, :, None] - self._config.sliding_window
        mask = np.where(seen, 0.0, -1e4).astype(self._float)
        return np.tile(mask[:, None], (1, 1, self._config.heads // self._config.kv_heads, 1))

    def _scatter(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        shape = (self._rows, self._config.kv_heads, positions.shape[1])
        rows, heads, _ = np.indices(shape)
        return np.stack([rows, heads, np.broadcast_to(positions[:, None], shape)], axis=-1)
