"""The runner for GPUs and NPUs.

Its ONNX sessions have fixed shapes, and keys and values stay on the device.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.inputs import InputBatch, host_inputs
from server.engines.embedded.model.variants import PORTABLE
from server.engines.embedded.runners.device.adapters import DeviceAdapters, UploadedPack
from server.engines.embedded.runners.device.binding import DeviceBinding
from server.engines.embedded.runners.device.buckets import chunk_for, chunks
from server.engines.embedded.runners.device.memory import Block, DeviceMemory
from server.engines.embedded.runners.device.providers import Provider
from server.engines.embedded.runners.device.rows import DeviceRows
from server.engines.embedded.runners.device.sessions import Sessions, SessionShape, detach_weights
from server.engines.embedded.runners.protocol import DecodeRow
from server.engines.embedded.runners.row_lengths import RowLengths
from server.request import AdapterMix

PACK_BYTES = 1 << 30


class DeviceRunner:
    """Runs a portable graph on a GPU or NPU.

    Raises `ValueError` for a call that would read or write positions that a KV cache slot does not hold.
    """

    def __init__(
        self,
        graph: BuiltGraph,
        provider: Provider,
        rows: int,
        context: int,
        chunk: int = 512,
        *,
        pack_bytes: int = PACK_BYTES,
    ) -> None:
        """Open the graph on the device with `rows` KV cache slots of up to `context` positions.

        A prompt is computed in runs of at most `chunk` tokens. `pack_bytes` limits the memory of adapters
        packed side by side for batches. Raises `RuntimeError` if ONNX Runtime lacks the device's execution
        provider.
        """
        if graph.variant is not PORTABLE:
            raise ValueError(
                f"the graph was built as {graph.variant.name!r}, for the CPU only; build it as 'portable' to "
                "run it on a GPU or NPU"
            )
        if chunk < 1:
            raise ValueError(f"chunk (tokens per prefill run) is {chunk}, but must be at least 1")
        config = graph.config
        self._contents = RowLengths(rows, context, config.vocabulary, config.context)
        self._config, self._provider = config, provider
        self._chunks = chunks(min(chunk, context))
        model, weights = detach_weights(graph)
        self._memory = DeviceMemory(provider, config, graph.dtype)
        self._weights = {name: self._memory.upload(array) for name, array in weights.items()}
        self._sessions = Sessions(model, graph, provider)
        self._adapters = DeviceAdapters(config, self._memory, pack_bytes)
        self._rows = DeviceRows(self._memory, self._contents.lengths, context)

    @property
    def rows(self) -> int:
        """Number of slots in the KV cache; each holds one sequence."""
        return len(self._contents.lengths)

    @property
    def context(self) -> int:
        """Number of positions in a KV cache slot."""
        return self._contents.context

    @property
    def vocabulary(self) -> int:
        """Number of logits for each position: the size of the vocabulary."""
        return self._config.vocabulary

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute `tokens` in KV cache slot `row` from position `start` on; return logits [len(outputs),
        vocabulary].

        Later positions of the slot are dropped.
        """
        wanted = np.array(outputs, dtype=np.int64)
        self._contents.check_prefill(row, start, tokens, wanted)
        adapters = self._adapters.use([adapter_mix])
        logits = np.empty((len(wanted), self.vocabulary), dtype=np.float32)
        self._contents.lengths[row] = start
        for begin in range(0, len(tokens), self._chunks[-1]):
            piece = tokens[begin : begin + self._chunks[-1]]
            inside = (wanted >= begin) & (wanted < begin + len(piece))
            indices = wanted[inside] - begin
            logits[inside] = self._run_piece(row, start + begin, piece, adapter_mix, indices, adapters)
            self._contents.lengths[row] = start + begin + len(piece)
        return logits

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        """Compute one token for each KV cache slot in `rows` (ascending, distinct); return logits [len(rows),
        vocabulary].

        Other slots keep their contents.
        """
        self._contents.check_decode(rows)
        adapters = self._adapters.use([entry.adapter_mix for entry in rows])
        tokens = max(entry.position for entry in rows) + 1
        seated = self._rows.seat([entry.row for entry in rows], tokens)
        count, positions = seated.block.rows, seated.block.positions
        seats = [seated.rows.index(entry.row) for entry in rows]
        batch = InputBatch.idle_rows(count, 1, positions)
        mixes: list[AdapterMix] = [()] * count
        for seat, entry in zip(seats, rows, strict=True):
            batch.place(seat, [entry.token], entry.position)
            mixes[seat] = entry.adapter_mix
        session = self._sessions.get(SessionShape(count, 1, positions, count, adapters.rank))
        bound = seated.bound.get(seated.block)
        if bound is None or bound.session is not session:
            bound = self._bind(session, seated.block, seated.spare)
            seated.bound[seated.block] = bound
        logits = self._run(bound, batch, positions, mixes, np.arange(count, dtype=np.int64), adapters)
        seated.swap()
        for entry in rows:
            self._contents.lengths[entry.row] = entry.position + 1
        return logits[seats]

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the keys and values of positions [0, length) from KV cache slot `source` to slot `target`."""
        self._contents.check_copy(source, target, length)
        if source != target:
            self._rows.copy(source, target, length)
        self._contents.lengths[target] = length

    def release(self, row: int) -> None:
        """Empty KV cache slot `row` and free its memory on the device."""
        self._contents.check_row(row)
        self._rows.release(row)
        self._contents.lengths[row] = 0

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Load an adapter's weights. Raises `ValueError` if the adapter does not fit the base model."""
        self._adapters.load(digest, weights)

    def unload(self, digest: str) -> None:
        """Unload an adapter. The caller makes sure that no running sequence uses it."""
        self._adapters.unload(digest)

    def close(self) -> None:
        """Release all arrays on the device, then the sessions that own the arrays.

        The runner cannot be used afterwards.
        """
        self._rows.close()
        self._adapters.close()
        self._weights.clear()
        self._sessions.close()
        self._memory.close()

    def _run_piece(
        self,
        row: int,
        start: int,
        tokens: Sequence[int],
        adapter_mix: AdapterMix,
        indices: NDArray[np.int64],
        adapters: UploadedPack,
    ) -> NDArray[np.float32]:
        """Compute one chunk of a prompt on the device.

        Return logits [len(indices), vocabulary] of the tokens at `indices`.
        """
        length = chunk_for(self._chunks, len(tokens))
        block, target = self._rows.park(row, start + len(tokens))
        batch = InputBatch.idle_rows(1, length, block.positions)
        batch.place(0, tokens, start)
        outputs = length if len(indices) > 1 else 1
        padded = np.zeros(outputs, dtype=np.int64)
        padded[: len(indices)] = indices
        session = self._sessions.get(SessionShape(1, length, block.positions, outputs, adapters.rank))
        bound = self._bind(session, block, target)
        logits = self._run(bound, batch, block.positions, [adapter_mix], padded, adapters)
        self._rows.fill(row)
        return logits[: len(indices)]

    def _bind(self, session: ort.InferenceSession, block: Block, target: Block) -> DeviceBinding:
        return DeviceBinding(session, self._weights, self._memory.names, block, target)

    def _run(
        self,
        bound: DeviceBinding,
        batch: InputBatch,
        positions: int,
        mixes: Sequence[AdapterMix],
        indices: NDArray[np.int64],
        adapters: UploadedPack,
    ) -> NDArray[np.float32]:
        """Run a batch that reads one block of KV cache and writes another.

        Return logits [len(indices), vocabulary].
        """
        host = host_inputs(self._config, self._memory.dtype, batch, positions)
        host |= adapters.masks(mixes) | {"indices": indices}
        logits = np.empty((len(indices), self.vocabulary), dtype=np.float32)
        bound.run(host, adapters, logits)
        return logits
