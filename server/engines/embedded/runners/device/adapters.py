"""LoRA adapters on a GPU or NPU: packs of adapters (see `lora`), uploaded once and padded to a fixed number
of rank columns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.config import ModelConfig
from server.engines.embedded.runners.device.buckets import SMALLEST_RANK, rank_for
from server.engines.embedded.runners.device.memory import DeviceMemory
from server.engines.embedded.runners.device.sessions import rank_columns
from server.engines.embedded.runners.lora import AdapterStore, Floats, Pack
from server.request import AdapterMix


class UploadedPack:
    """A pack (several adapters' LoRA weights side by side) in the device's memory, padded to `rank` columns
    for each linear module.
    """

    def __init__(self, config: ModelConfig, pack: Pack, rank: int, memory: DeviceMemory) -> None:
        self.pack, self.rank = pack, rank
        self._columns = rank_columns(config, rank)
        self.values: dict[str, ort.OrtValue] = {}
        """Maps each name of a graph input to its array on the device."""
        for name, array in pack.arrays.items():
            kind, group, _ = name.split(".")
            axis = 1 if kind == "lora_a" else 0
            self.values[name] = memory.upload(_padded(array, axis, self._columns[group]))

    def masks(self, mixes: Sequence[AdapterMix]) -> dict[str, Floats]:
        """Return how strongly each request of a batch uses each adapter of the pack.

        `mixes` holds each request's adapters with their weights. Maps each graph input
        `lora_mask.…` to a mask [requests, 1, LoRA rank columns].
        """
        found, dtype = self.pack.masks(mixes), self.pack.dtype
        none = np.zeros((len(mixes), 1, 0), dtype=dtype)
        return {
            f"lora_mask.{group}": _padded(found.get(group, none), 2, columns)
            for group, columns in self._columns.items()
        }


class DeviceAdapters:
    """Holds the loaded adapters of a device, and packs of them (LoRA weights side by side) in the device's
    memory.
    """

    def __init__(self, config: ModelConfig, memory: DeviceMemory, pack_bytes: int) -> None:
        self._config, self._memory = config, memory
        self._store = AdapterStore(config, pack_bytes, memory.dtype.name)
        self._uploaded: OrderedDict[tuple[frozenset[str], int], UploadedPack] = OrderedDict()
        self._rank = SMALLEST_RANK
        self._current = self._store.base

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Load an adapter's weights into host memory.

        Raises `ValueError` if the adapter does not fit the base model.
        """
        self._store.load(digest, weights)

    def unload(self, digest: str) -> None:
        """Unload an adapter, and drop every pack of adapters that contains it."""
        self._store.unload(digest)
        self._drop()
        ranks = [self._rank_of(uploaded.pack) for uploaded in self._uploaded.values()]
        self._rank = max(ranks, default=SMALLEST_RANK)

    def use(self, mixes: Sequence[AdapterMix]) -> UploadedPack:
        """Return a pack on the device that contains all adapters of the requests in a batch; upload it if
        needed. `mixes` holds each request's adapters with their weights.

        The number of LoRA rank columns only grows until an adapter is unloaded, since each number needs ONNX
        sessions of its own.
        """
        current = self._current if self._store.holds(self._current) else self._store.base
        active = frozenset(digest for adapter_mix in mixes for digest, _ in adapter_mix)
        self._current = pack = self._store.pack(active, current)
        self._rank = max(self._rank, self._rank_of(pack))
        key = pack.digests, self._rank
        if key not in self._uploaded:
            self._drop()
            self._uploaded[key] = UploadedPack(self._config, pack, self._rank, self._memory)
        return self._uploaded[key]

    def close(self) -> None:
        """Release all packs of adapters on the device."""
        self._uploaded.clear()

    def _rank_of(self, pack: Pack) -> int:
        """Return the number of LoRA rank columns per linear module that `pack` needs, if all modules get the
        same number.
        """
        groups = self._config.groups.items()
        return rank_for(max(-(-pack.widths[group] // len(modules)) for group, modules in groups))

    def _drop(self) -> None:
        """Release the packs of adapters on the device that the adapter store has dropped, or whose number of
        rank columns is outdated.
        """
        self._uploaded = OrderedDict(
            (key, uploaded)
            for key, uploaded in self._uploaded.items()
            if self._store.holds(uploaded.pack) and uploaded.rank == self._rank
        )


def _padded(array: Floats, axis: int, size: int) -> NDArray[np.floating]:
    """Pad `array` with zeros at the end of `axis`, so that this axis has length `size`."""
    room = [(0, size - array.shape[i] if i == axis else 0) for i in range(array.ndim)]
    return np.pad(array, room)
