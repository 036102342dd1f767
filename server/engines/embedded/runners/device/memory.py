"""Memory of a device: arrays uploaded to it, and blocks of keys and values that never leave it.

Whatever is done to a block is done by a small graph (`copy_graphs`) on the device itself. Those graphs'
sessions own what they made, and are kept until the end: a session has to outlive its values.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.model.plan import NUMPY, Dtype
from server.engines.embedded.runners.device import copy_graphs
from server.engines.embedded.runners.device.providers import Provider
from server.engines.embedded.runners.device.sessions import open_session


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """Keys and values of some rows: for each layer two values [rows, KV heads, positions, head size]."""

    rows: int
    positions: int
    values: list[ort.OrtValue]


class DeviceMemory:
    """Makes and moves blocks."""

    def __init__(self, provider: Provider, config: ModelConfig, dtype: Dtype) -> None:
        self._provider, self._config = provider, config
        self.dtype = np.dtype(NUMPY[dtype])
        self.names = [f"{part}.{layer}" for layer in range(config.layers) for part in "kv"]
        """What the graph calls the values of a block, in their order, after `past_` and `present_`."""
        self._sessions: dict[Hashable, ort.InferenceSession] = {}

    def upload(self, array: NDArray[np.generic]) -> ort.OrtValue:
        """The array on the device; where that is the host's own memory, the array itself."""
        if self._provider.memory == "cpu":
            return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        dtype, rank = array.dtype.name, array.ndim
        # Not strict: WebGPU has no uint8 of its own, and the host may do nothing as well before the copy.
        session = self._session(
            ("upload", dtype, rank), lambda: copy_graphs.upload(dtype, rank), strict=False
        )
        return self._make_one(session, np.ascontiguousarray(array))

    def zeros(self, rows: int, positions: int) -> Block:
        """A block of zeros."""
        shape = self._shape(rows, positions)
        session = self._session(("zeros", rows, positions), lambda: copy_graphs.zeros(self.dtype.name, shape))
        zero = np.zeros((1, 1, 1, 1), dtype=self.dtype)
        return Block(rows, positions, [self._make_one(session, zero) for _ in self.names])

    def take(self, block: Block, rows: Sequence[int], positions: int) -> Block:
        """A new block: those rows of `block` in this order, cut to `positions` or filled up with zeros."""
        shape = self._shape(block.rows, block.positions)
        session = self._session(
            ("take", block.rows, block.positions, len(rows), positions),
            lambda: copy_graphs.take(self.dtype.name, len(self.names), shape, len(rows), positions),
        )
        binding = session.io_binding()
        chosen = np.array(rows, dtype=np.int64)
        binding.bind_cpu_input("rows", chosen)
        for i, value in enumerate(block.values):
            binding.bind_ortvalue_input(f"x{i}", value)
            binding.bind_output(f"y{i}", self._provider.memory)
        session.run_with_iobinding(binding)
        return Block(len(rows), positions, list(binding.get_outputs()))

    def put(self, block: Block, row: int, single: Block, target: Block) -> None:
        """Fill `target` with `block`, its row `row` replaced by the one row of `single`."""
        assert single.positions == block.positions == target.positions
        assert target.rows == block.rows
        shape = self._shape(block.rows, block.positions)
        session = self._session(
            ("put", block.rows, block.positions),
            lambda: copy_graphs.put(self.dtype.name, len(self.names), shape),
        )
        binding = session.io_binding()
        chosen = np.array([[row]], dtype=np.int64)
        binding.bind_cpu_input("rows", chosen)
        for i, value in enumerate(block.values):
            binding.bind_ortvalue_input(f"x{i}", value)
            binding.bind_ortvalue_input(f"s{i}", single.values[i])
            binding.bind_ortvalue_output(f"y{i}", target.values[i])
        session.run_with_iobinding(binding)

    def close(self) -> None:
        """Let go of the sessions; no value may be alive any more."""
        self._sessions.clear()

    def _make_one(self, session: ort.InferenceSession, array: NDArray[np.generic]) -> ort.OrtValue:
        """y0 on the device, from x0 on the host."""
        binding = session.io_binding()
        binding.bind_cpu_input("x0", array)
        binding.bind_output("y0", self._provider.memory)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _shape(self, rows: int, positions: int) -> copy_graphs.BlockShape:
        return rows, self._config.kv_heads, positions, self._config.head_dim

    def _session(
        self, key: Hashable, model: Callable[[], bytes], *, strict: bool = True
    ) -> ort.InferenceSession:
        if key not in self._sessions:
            self._sessions[key] = open_session(model(), self._provider, {}, strict=strict)
        return self._sessions[key]
