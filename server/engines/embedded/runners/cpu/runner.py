"""The runner for the CPU.

One ONNX Runtime session computes batches of any shape and writes keys and values in place.
"""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Iterator, Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.model.variants import FUSED
from server.engines.embedded.runners.cpu.bfloat16 import LEAST_TOKENS, BfloatPrefill
from server.engines.embedded.runners.cpu.binding import CpuBinding
from server.engines.embedded.runners.cpu.memory import KvMemory
from server.engines.embedded.runners.lora import AdapterStore
from server.engines.embedded.runners.protocol import DecodeRow
from server.engines.embedded.runners.row_lengths import RowLengths
from server.request import AdapterMix

PROVIDER = "CPUExecutionProvider"
MAX_BOUND = 256
"""Maximum number of session bindings that are cached, one per range of KV cache slots and run length."""
MAX_GAP = 4
"""Maximum number of unused slots between two KV cache slots that are decoded in one run. With more, two
separate runs are faster.
"""
POSITION_STEP = 16
"""The number of positions per KV cache slot is rounded up to a multiple of this, so that each slot begins on
its own memory page.
"""


class CpuRunner:
    """Runs a fused graph on the CPU.

    Raises `ValueError` for a call that would read or write positions that a KV cache slot does not hold.
    """

    def __init__(
        self,
        graph: BuiltGraph,
        rows: int,
        context: int,
        threads: int | None = None,
        *,
        spin_us: int = 50,
        pack_bytes: int = 1 << 30,
        prompts: BfloatPrefill | None = None,
    ) -> None:
        """Open the graph with `rows` KV cache slots of `context` positions each.

        `threads` is one per available core by default. A thread that waits for work within a step spins for
        `spin_us` microseconds before it sleeps. That is long enough to reach the next operator, and short
        enough to leave cores to others. `pack_bytes` limits the memory of adapters packed side by side for
        batches. `prompts`, if given, computes prefill chunks of at least `LEAST_TOKENS` tokens in bfloat16
        with OpenVINO; without it, ONNX Runtime computes them.
        """
        if graph.variant is not FUSED:
            raise ValueError(
                f"the ONNX graph was built as {graph.variant.name!r}, which the CPU runner cannot run; build "
                "it as 'fused'"
            )
        config = graph.config
        self._contents = RowLengths(rows, context, config.vocabulary, config.context)
        self._config = config
        if spin_us < 0:
            raise ValueError(f"spin_us {spin_us} is below 0; use 0 or more microseconds")
        self._session = _open(graph, threads, spin_us)
        self._prompts = prompts
        positions = -(-context // POSITION_STEP) * POSITION_STEP
        self._memory = KvMemory(config.layers, rows, config.kv_heads, positions, config.head_dim)
        self._store = AdapterStore(config, pack_bytes)
        self._lengths = self._contents.lengths
        self._bounds: OrderedDict[tuple[int, int, int], CpuBinding] = OrderedDict()
        self._logits = np.empty((0, config.vocabulary), dtype=np.float32)

    @property
    def rows(self) -> int:
        """Number of slots in the KV cache; each holds one sequence."""
        return len(self._lengths)

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

        Later positions of the slot are dropped. The returned array is valid until the next call.
        """
        indices = np.array(outputs, dtype=np.int64)
        self._contents.check_prefill(row, start, tokens, indices)
        logits = self._buffer(len(indices))
        self._lengths[row] = start
        if self._prompts is not None and len(tokens) >= LEAST_TOKENS:
            self._prompts.run(self._memory, self._store, row, start, tokens, adapter_mix, indices, logits)
        else:
            bound = self._bound(row, 1, len(tokens))
            bound.ids[0] = tokens
            bound.seqlens[0] = start + len(tokens) - 1
            bound.set_mixes([adapter_mix], self._store)
            bound.run(indices, logits)
        self._lengths[row] = start + len(tokens)
        return logits

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        """Compute one token for each KV cache slot in `rows` (ascending, distinct); return logits [len(rows),
        vocabulary].

        Other slots keep their contents. The returned array is valid until the next call.
        """
        self._contents.check_decode(rows)
        logits = self._buffer(len(rows))
        done = 0
        for span in spans(rows):
            self._decode_span(span, logits[done : done + len(span)])
            done += len(span)
        return logits

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the keys and values of positions [0, length) from KV cache slot `source` to slot `target`."""
        self._contents.check_copy(source, target, length)
        if source != target:
            self._memory.copy(source, target, length)
        self._lengths[target] = length

    def release(self, row: int) -> None:
        """Empty KV cache slot `row`, and return its memory to the system if this is supported."""
        self._contents.check_row(row)
        self._memory.release(row, self._lengths[row])
        self._lengths[row] = 0

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Load an adapter's weights. Raises `ValueError` if the adapter does not fit the base model."""
        self._store.load(digest, weights)

    def unload(self, digest: str) -> None:
        """Unload an adapter. The caller makes sure that no running sequence uses it."""
        self._store.unload(digest)
        if self._prompts is not None:
            self._prompts.forget()
        for key in [
            key for key, bound in self._bounds.items() if bound.pack and digest in bound.pack.digests
        ]:
            del self._bounds[key]

    def close(self) -> None:
        """Release the session and the KV cache. The runner cannot be used afterwards."""
        self._bounds.clear()
        self._prompts = None
        del self._session, self._memory, self._store

    def _decode_span(self, rows: Sequence[DecodeRow], logits: NDArray[np.float32]) -> None:
        """Decode neighbouring KV cache slots in one run, which also computes the unused slots between
        them.
        """
        first, numbers = rows[0].row, [entry.row for entry in rows]
        bound = self._bound(first, numbers[-1] + 1 - first, 1)
        mixes: list[AdapterMix] = [()] * len(bound.ids)
        bound.ids.fill(0)
        bound.seqlens.fill(0)
        indices = np.array(numbers, dtype=np.int64) - first
        bound.ids[indices, 0] = [entry.token for entry in rows]
        bound.seqlens[indices] = [entry.position for entry in rows]
        for entry in rows:
            mixes[entry.row - first] = entry.adapter_mix
        bound.set_mixes(mixes, self._store)
        self._run_beside_idle(bound, first, numbers, indices, logits)
        for entry in rows:
            self._lengths[entry.row] = entry.position + 1

    def _run_beside_idle(
        self,
        bound: CpuBinding,
        first: int,
        numbers: list[int],
        indices: NDArray[np.int64],
        logits: NDArray[np.float32],
    ) -> None:
        """Run the decode batch of KV cache slots from `first` on.

        Unused slots between them compute a token at position 0; what they held there is restored afterwards.
        """
        busy = set(numbers)
        idle = [row for row in range(first, numbers[-1]) if row not in busy and self._lengths[row]]
        if not idle:
            bound.run(indices, logits)
            return
        beginnings = self._memory.array[:, :, :, :, 0]
        kept = beginnings[:, :, idle]
        bound.run(indices, logits)
        beginnings[:, :, idle] = kept

    def _bound(self, first: int, count: int, length: int) -> CpuBinding:
        """Return the session binding for these KV cache slots and this number of tokens per slot; create it
        if it is not cached.
        """
        key = (first, count, length)
        if key in self._bounds:
            self._bounds.move_to_end(key)
        else:
            self._bounds[key] = CpuBinding(self._session, self._memory, first, count, length)
            if len(self._bounds) > MAX_BOUND:
                self._bounds.popitem(last=False)
        return self._bounds[key]

    def _buffer(self, count: int) -> NDArray[np.float32]:
        if count > len(self._logits):
            self._logits = np.empty((count, self._config.vocabulary), dtype=np.float32)
        return self._logits[:count]


def spans(rows: Sequence[DecodeRow]) -> Iterator[Sequence[DecodeRow]]:
    """Split `rows` into groups that are each decoded in one run, at gaps of more than `MAX_GAP` unused KV
    cache slots.
    """
    begin = 0
    for i in range(1, len(rows)):
        if rows[i].row - rows[i - 1].row > MAX_GAP + 1:
            yield rows[begin:i]
            begin = i
    yield rows[begin:]


def _open(graph: BuiltGraph, threads: int | None, spin_us: int) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads if threads is not None else available_threads()
    options.inter_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.intra_op.allow_spinning", "1" if spin_us else "0")
    options.add_session_config_entry("session.intra_op.spin_duration_us", str(spin_us))
    options.add_session_config_entry("session.force_spinning_stop", "1")
    session = ort.InferenceSession(graph.path, options, providers=[PROVIDER])
    if session.get_providers() != [PROVIDER]:
        raise RuntimeError(
            f"the ONNX Runtime session runs on {session.get_providers()}, but must run on {PROVIDER} alone; "
            "reinstall ONNX Runtime"
        )
    return session


def available_threads() -> int:
    """Return the number of cores that this process may use; 0 (ONNX Runtime decides) if it may use all
    cores.
    """
    if hasattr(os, "sched_getaffinity"):
        allowed = len(os.sched_getaffinity(0))
        return 0 if allowed == os.cpu_count() else allowed
    return 0
