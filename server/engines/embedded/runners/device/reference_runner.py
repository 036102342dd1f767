"""Runs a device's own graph on the CPU, slowly and in little memory: what the device is judged by.

The weights stay mapped from the file: nothing is packed, folded or fused ahead of time, so beside pages
that the system may take back at any time it needs about one matrix in float32. Quantised weights are
multiplied as they are written, without rounding activations.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.plan import NUMPY
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.lora import AdapterStore, Pack
from server.engines.embedded.runners.protocol import DecodeRow
from server.request import AdapterMix

PROVIDER = "CPUExecutionProvider"
HIDDEN = {"float32": -1e9, "float16": -1e4}
"""Added to the scores of positions that are not seen."""


class ReferenceRunner:
    """A `Runner` of a portable graph for a few short rows, each computed by itself."""

    def __init__(self, graph: BuiltGraph, rows: int, context: int, threads: int | None = None) -> None:
        if graph.variant is not PORTABLE:
            raise ValueError(
                f"graph variant {graph.variant.name!r} is not what devices run; prepare it as 'portable'"
            )
        self._config, self._context = graph.config, context
        self._float = NUMPY[graph.dtype]
        self._store = AdapterStore(graph.config, pack_bytes=0, dtype=self._float)
        self._session = _open(graph, threads)
        self._rows: list[dict[str, NDArray[np.generic]]] = [{} for _ in range(rows)]

    @property
    def rows(self) -> int:
        """Rows of the KV memory."""
        return len(self._rows)

    @property
    def vocabulary(self) -> int:
        """Logits per position."""
        return self._config.vocabulary

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """See `Runner.prefill`."""
        positions = np.arange(start, start + len(tokens), dtype=np.int64)[None]
        past = self._rows[row] or self._empty()
        pack = self._store.pack(frozenset(digest for digest, _ in adapter_mix), self._store.base)
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": np.array(tokens, dtype=np.int64)[None],
            "positions": positions,
            "order": np.arange(len(tokens), dtype=np.int64)[None],
            "indices": np.array(outputs, dtype=np.int64),
            "mask": self._mask(positions[0]),
            "scatter": self._scatter(positions[0]),
            **pack.arrays,
            **self._masks(pack, adapter_mix),
            **{f"past_{name}": value for name, value in past.items()},
        }
        names = ["logits", *(f"present_{name}" for name in past)]
        logits, *present = self._session.run(names, feeds)
        self._rows[row] = dict(zip(past, map(np.asarray, present), strict=True))
        return np.asarray(logits)

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        """See `Runner.decode`."""
        return np.concatenate(
            [self.prefill(entry.row, entry.position, [entry.token], entry.adapter_mix, [0]) for entry in rows]
        )

    def copy(self, source: int, target: int, length: int) -> None:
        """See `Runner.copy`; whatever lies past `length` is copied too, which nothing can see."""
        self._rows[target] = dict(self._rows[source])

    def release(self, row: int) -> None:
        """See `Runner.release`."""
        self._rows[row] = {}

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """See `Runner.load`."""
        self._store.load(digest, weights)

    def unload(self, digest: str) -> None:
        """See `Runner.unload`."""
        self._store.unload(digest)

    def close(self) -> None:
        """Release the session; nothing may be called afterwards."""
        self._rows.clear()
        del self._session, self._store

    def _empty(self) -> dict[str, NDArray[np.generic]]:
        config = self._config
        shape = (1, config.kv_heads, self._context, config.head_dim)
        return {
            f"{part}.{layer}": np.zeros(shape, self._float) for layer in range(config.layers) for part in "kv"
        }

    def _masks(self, pack: Pack, adapter_mix: AdapterMix) -> dict[str, NDArray[np.generic]]:
        masks = pack.masks([adapter_mix])
        empty = np.zeros((1, 1, 0), self._float)
        return {f"lora_mask.{group}": masks.get(group, empty) for group in self._config.groups}

    def _mask(self, positions: NDArray[np.int64]) -> NDArray[np.generic]:
        """[1, 1, GS, T], position fastest."""
        keys = np.arange(self._context)[None]
        seen = keys <= positions[:, None]
        if self._config.sliding_window is not None:
            seen &= keys > positions[:, None] - self._config.sliding_window
        mask = np.where(seen, 0.0, HIDDEN[self._float]).astype(self._float)
        return np.tile(mask, (self._config.heads // self._config.kv_heads, 1))[None, None]

    def _scatter(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """[1, KV heads, S, 3]."""
        shape = (1, self._config.kv_heads, len(positions))
        rows, heads, _ = np.indices(shape)
        return np.stack([rows, heads, np.broadcast_to(positions, shape)], axis=-1)


def _open(graph: BuiltGraph, threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.add_session_config_entry("session.disable_prepacking", "1")
    options.enable_cpu_mem_arena = False
    options.enable_mem_pattern = False
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 3
    return ort.InferenceSession(str(graph.path), options, providers=[PROVIDER])
