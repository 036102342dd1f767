"""Manages a device's memory: uploaded arrays, and blocks of KV cache that stay on the device.

Small ONNX graphs (`copy_graphs`), run on the device, create and copy blocks. Their sessions own the arrays
that they create, so the sessions stay open until the runner is closed.
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
from server.engines.embedded.runners.device.sessions import open_session, own_memory


@dataclass(frozen=True, slots=True, eq=False)
class Block:
    """The keys and values of some sequences on a device: for each layer two arrays [slots, KV heads,
    positions, head size].
    """

    rows: int
    positions: int
    values: list[ort.OrtValue]


class DeviceMemory:
    """Uploads arrays to a device, and creates and copies blocks of KV cache there."""

    def __init__(self, provider: Provider, config: ModelConfig, dtype: Dtype) -> None:
        self._provider, self._config = provider, config
        self.dtype = np.dtype(NUMPY[dtype])
        self.names = [f"{part}.{layer}" for layer in range(config.layers) for part in "kv"]
        """Names of a block's arrays in order, as in the graph but without `past_` and `present_`."""
        self._sessions: dict[Hashable, ort.InferenceSession] = {}
        self._info = own_memory(provider)

    def upload(self, array: NDArray[np.generic]) -> ort.OrtValue:
        """Copy an array to the device.

        If the device uses host memory, the array is wrapped without copying.
        """
        if self._provider.memory == "cpu" and self._info is None:
            return ort.OrtValue.ortvalue_from_numpy(np.ascontiguousarray(array))
        dtype, rank = array.dtype.name, array.ndim
        # Not strict: WebGPU cannot run a uint8 node, and a node on the host before the copy works as well.
        session = self._session(
            ("upload", dtype, rank), lambda: copy_graphs.upload(dtype, rank), strict=False
        )
        return self._make_one(session, np.ascontiguousarray(array), array.shape)

    def zeros(self, rows: int, positions: int) -> Block:
        """Create a block of KV cache with `rows` slots of `positions` positions, filled with zeros."""
        shape = self._shape(rows, positions)
        session = self._session(("zeros", rows, positions), lambda: copy_graphs.zeros(self.dtype.name, shape))
        zero = np.zeros((1, 1, 1, 1), dtype=self.dtype)
        return Block(rows, positions, [self._make_one(session, zero, shape) for _ in self.names])

    def take(self, block: Block, rows: Sequence[int], positions: int) -> Block:
        """Copy the slots `rows` of `block`, in this order, to a new block.

        They are cut or zero-padded to `positions`.
        """
        shape, taken = self._shape(block.rows, block.positions), self._shape(len(rows), positions)
        session = self._session(
            ("take", block.rows, block.positions, len(rows), positions),
            lambda: copy_graphs.take(self.dtype.name, len(self.names), shape, len(rows), positions),
        )
        binding = session.io_binding()
        chosen = np.array(rows, dtype=np.int64)
        binding.bind_cpu_input("rows", chosen)
        for i, value in enumerate(block.values):
            binding.bind_ortvalue_input(f"x{i}", value)
            self._bind_output(binding, f"y{i}", taken, self.dtype)
        session.run_with_iobinding(binding)
        return Block(len(rows), positions, list(binding.get_outputs()))

    def put(self, block: Block, row: int, single: Block, target: Block) -> None:
        """Copy `block` to `target`, and replace slot `row` of the copy by the only slot of `single`."""
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
        """Close the sessions of the copy graphs. All arrays on the device must have been released before."""
        self._sessions.clear()

    def _make_one(
        self, session: ort.InferenceSession, array: NDArray[np.generic], shape: Sequence[int]
    ) -> ort.OrtValue:
        """Run a copy graph on `array` in host memory. Return its output of this `shape` on the device."""
        binding = session.io_binding()
        binding.bind_cpu_input("x0", array)
        self._bind_output(binding, "y0", shape, array.dtype)
        session.run_with_iobinding(binding)
        return binding.get_outputs()[0]

    def _bind_output(
        self, binding: ort.IOBinding, name: str, shape: Sequence[int], dtype: np.dtype[np.generic]
    ) -> None:
        """Bind a session's output to the device's memory.

        The memory of a provider registered at run time has no name, so it is passed as an `OrtMemoryInfo`.
        """
        if self._info is None:
            binding.bind_output(name, self._provider.memory)
            return
        value = ort.OrtValue.ortvalue_from_shape_and_type(shape, dtype, memory_info=self._info)
        binding.bind_ortvalue_output(name, value)

    def _shape(self, rows: int, positions: int) -> copy_graphs.BlockShape:
        return rows, self._config.kv_heads, positions, self._config.head_dim

    def _session(
        self, key: Hashable, model: Callable[[], bytes], *, strict: bool = True
    ) -> ort.InferenceSession:
        if key not in self._sessions:
            self._sessions[key] = open_session(model(), self._provider, {}, strict=strict)
        return self._sessions[key]
