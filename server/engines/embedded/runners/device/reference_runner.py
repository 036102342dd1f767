"""Runs a device's graph on the CPU, slowly but in little memory, to compute reference logits for the device.

ONNX Runtime reads the weights from the mapped file without repacking or fusing them. So it needs memory for
about one matrix in float32, apart from pages that the system can reclaim. Activations are not rounded, even
if weights are quantised.
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
"""Value added to the attention scores of masked positions, by number format."""


class ReferenceRunner:
    """Runs a portable graph (standard ONNX operators only) on the CPU, for a few short sequences, one after
    another.
    """

    def __init__(self, graph: BuiltGraph, rows: int, context: int, threads: int | None = None) -> None:
        if graph.variant is not PORTABLE:
            raise ValueError(
                f"the graph was built as {graph.variant.name!r}, for the CPU only; "
                "build it as 'portable' to compute reference logits with it"
            )
        self._config, self._context = graph.config, context
        self._float = NUMPY[graph.dtype]
        self._store = AdapterStore(graph.config, pack_bytes=0, dtype=self._float)
        self._session = _open(graph, threads)
        self._rows: list[dict[str, NDArray[np.generic]]] = [{} for _ in range(rows)]

    @property
    def rows(self) -> int:
        """Number of slots in the KV cache; each holds one sequence."""
        return len(self._rows)

    @property
    def vocabulary(self) -> int:
        """Number of logits for each position: the size of the vocabulary."""
        return self._config.vocabulary

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute `tokens` in KV cache slot `row` from position `start` on; return logits [len(outputs),
        vocabulary]. See `Runner.prefill`.
        """
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
        """Compute one token for each KV cache slot in `rows` (ascending, distinct); return logits [len(rows),
        vocabulary]. See `Runner.decode`.
        """
        return np.concatenate(
            [self.prefill(entry.row, entry.position, [entry.token], entry.adapter_mix, [0]) for entry in rows]
        )

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the keys and values of KV cache slot `source` to slot `target`.

        Positions past `length` are copied too, but never read. See `Runner.copy`.
        """
        self._rows[target] = dict(self._rows[source])

    def release(self, row: int) -> None:
        """Empty KV cache slot `row` and free its arrays. See `Runner.release`."""
        self._rows[row] = {}

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Load an adapter's weights. See `Runner.load`."""
        self._store.load(digest, weights)

    def unload(self, digest: str) -> None:
        """Unload an adapter. The caller makes sure that no running sequence uses it. See `Runner.unload`."""
        self._store.unload(digest)

    def close(self) -> None:
        """Release the session and the KV cache. The runner cannot be used afterwards."""
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
        """Compute the attention mask [1, 1, GS, T]: 0 if visible, very negative if not.

        GS is (heads per KV head) x tokens, T the KV cache positions.
        """
        keys = np.arange(self._context)[None]
        seen = keys <= positions[:, None]
        if self._config.sliding_window is not None:
            seen &= keys > positions[:, None] - self._config.sliding_window
        mask = np.where(seen, 0.0, HIDDEN[self._float]).astype(self._float)
        return np.tile(mask, (self._config.heads // self._config.kv_heads, 1))[None, None]

    def _scatter(self, positions: NDArray[np.int64]) -> NDArray[np.int64]:
        """Compute [1, KV heads, tokens, 3]: the slot, KV head and position in the KV cache to which each new
        key is written.
        """
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
