"""Runs the portable variant as devices do: fixed shapes, keys and values that stay on the device."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.runners.lora import Pack
from server.request import AdapterMix


class PortableRunner:
    """One batch of `rows` rows of `positions` positions, computed in steps of any one length.

    KV memory is read from one place and written to another, which change places after the run; `aliased`,
    both are one. With `only_provider` every node has to run on the provider, or no session is made.
    """

    def __init__(
        self,
        graph: BuiltGraph,
        rows: int,
        positions: int,
        adapters: dict[str, AdapterWeights],
        *,
        provider: str = "CPUExecutionProvider",
        memory: str = "cpu",
        aliased: bool = False,
        only_provider: bool = False,
    ) -> None:
        self._provider, self._memory = provider, memory
        self._aliased, self._only_provider = aliased, only_provider
        self._config, self._rows, self._positions = graph.config, rows, positions
        self._float = np.dtype("float16" if graph.dtype == "fp16" else "float32")
        self._graph = graph
        self._pack = Pack(graph.config, adapters, self._float.name)
        self._sessions: dict[tuple[int, int], ort.InferenceSession] = {}
        shape = (rows, graph.config.kv_heads, positions, graph.config.head_dim)
        self._start = np.zeros(shape, self._float)
        names = [f"{part}.{layer}" for layer in range(graph.config.layers) for part in "kv"]
        self._past: dict[str, ort.OrtValue | None] = dict.fromkeys(names)

    def run(
        self,
        tokens: NDArray[np.int64],
        starts: Sequence[int],
        mixes: Sequence[AdapterMix],
        indices: Sequence[int],
    ) -> NDArray[np.float32]:
        """Compute tokens [rows, S] at positions `starts`…; logits [len(indices), vocabulary]."""
        length = tokens.shape[1]
        positions = np.array(starts)[:, None] + np.arange(length)
        feeds: dict[str, NDArray[np.generic]] = {
            "input_ids": tokens,
            "positions": positions,
            "order": np.arange(positions.size).reshape(positions.shape),
            "indices": np.array(indices, dtype=np.int64),
            "mask": self._mask(positions),
            "scatter": self._scatter(positions),
            **self._pack.arrays,
        }
        masks = self._pack.masks(mixes)
        for group, width in self._pack.widths.items():
            mask = masks.get(group, np.zeros((self._rows, width), self._float))
            feeds[f"lora_mask.{group}"] = mask.reshape(self._rows, 1, width)
        session = self._session(length, len(indices))
        binding = session.io_binding()
        for name, array in feeds.items():
            binding.bind_cpu_input(name, np.ascontiguousarray(array))
        for name, past in self._past.items():
            if past is None:
                binding.bind_cpu_input(f"past_{name}", self._start)
            else:
                binding.bind_ortvalue_input(f"past_{name}", past)
            if past is not None and self._aliased:
                binding.bind_ortvalue_output(f"present_{name}", past)
            else:
                binding.bind_output(f"present_{name}", self._memory)
        binding.bind_output("logits", "cpu")
        session.run_with_iobinding(binding)
        *present, logits = binding.get_outputs()
        self._past = dict(zip(self._past, present, strict=True))
        return np.array(logits.numpy())

    def close(self) -> None:
        """Let go of the memory, then of the sessions that own it."""
        self._past.clear()
        self._sessions.clear()

    def _session(self, length: int, count: int) -> ort.InferenceSession:
        """A session of fixed shapes, as a device provider gets it."""
        if (length, count) not in self._sessions:
            options = ort.SessionOptions()
            options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
            options.intra_op_num_threads = 1
            heads = self._config.heads // self._config.kv_heads
            sizes = {"B": self._rows, "S": length, "T": self._positions, "GS": heads * length, "M": count}
            sizes |= {f"R_{group}": self._pack.widths[group] for group in self._config.groups}
            for name, size in sizes.items():
                options.add_free_dimension_override_by_name(name, size)
            path = str(self._graph.path)
            if self._only_provider:
                options.add_session_config_entry("session.disable_cpu_ep_fallback", "1")
            options.enable_mem_pattern = False
            options.log_severity_level = 3
            session = ort.InferenceSession(path, options, providers=[self._provider])
            assert session.get_providers()[0] == self._provider
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
