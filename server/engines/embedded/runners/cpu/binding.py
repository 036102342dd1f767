"""An ONNX Runtime session that is bound once to buffers, KV cache slots and adapters, and then run many times
with the same shape.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from server.engines.embedded.runners.cpu.memory import KvMemory
from server.engines.embedded.runners.lora import AdapterStore, Floats, Pack
from server.request import AdapterMix


class CpuBinding:
    """Binds a session for runs over the KV cache slots [first, first + count), with `length` tokens in each
    slot.

    To use it, fill `ids` [count, length] and `seqlens` [count], then call `run`.
    """

    def __init__(
        self, session: ort.InferenceSession, memory: KvMemory, first: int, count: int, length: int
    ) -> None:
        self._session = session
        self._binding = session.io_binding()
        self.ids = np.zeros((count, length), dtype=np.int64)
        self.seqlens = np.zeros(count, dtype=np.int32)
        self._total = np.zeros((), dtype=np.int32)
        self.pack: Pack | None = None
        self._masks: dict[str, Floats] = {}
        self._mixes: list[AdapterMix] = []
        for name, array in (
            ("input_ids", self.ids),
            ("seqlens_k", self.seqlens),
            ("total_length", self._total),
        ):
            self._input(name, array)
        for layer in range(memory.array.shape[0]):
            for part, letter in enumerate("kv"):
                rows = memory.array[layer, part, first : first + count]
                self._input(f"past_{letter}.{layer}", rows)
                self._output(f"present_{letter}.{layer}", rows)

    def set_mixes(self, mixes: Sequence[AdapterMix], store: AdapterStore) -> None:
        """Set the adapters, with their weights, of each KV cache slot."""
        wanted = list(mixes)
        current = self.pack if self.pack is not None and store.holds(self.pack) else store.base
        pack = store.pack(frozenset(digest for adapter_mix in wanted for digest, _ in adapter_mix), current)
        if pack is not self.pack:
            self._attach(pack)
        elif wanted == self._mixes:
            return
        count, length = self.ids.shape
        for group, mask in pack.masks(wanted).items():
            self._masks[group].reshape(count, length, -1)[...] = mask
        self._mixes = wanted

    def run(self, indices: NDArray[np.int64], logits: NDArray[np.float32]) -> None:
        """Run the session. `logits` [len(indices), vocabulary] receives the logits of the tokens at
        `indices`.

        `indices` count tokens over all slots: first the `length` tokens of the first slot, then those of the
        next.
        """
        self._total[...] = self.seqlens.max() + 1
        self._input("indices", indices)
        self._output("logits", logits)
        self._session.run_with_iobinding(self._binding)

    def _attach(self, pack: Pack) -> None:
        self.pack = pack
        for name, array in pack.arrays.items():
            self._input(name, array)
        for group, width in pack.widths.items():
            self._masks[group] = np.zeros((self.ids.size, width), dtype=np.float32)
            self._input(f"lora_mask.{group}", self._masks[group])

    def _input(self, name: str, array: NDArray[np.generic]) -> None:
        self._binding.bind_input(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)

    def _output(self, name: str, array: NDArray[np.generic]) -> None:
        self._binding.bind_output(name, "cpu", 0, array.dtype.type, array.shape, array.ctypes.data)
