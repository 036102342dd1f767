"""Packs the LoRA weights of several adapters side by side, as the graph's inputs lora_a, lora_b and
lora_mask.

Every adapter keeps its own arrays. For the adapters of a batch, a *pack* is built: arrays that hold copies of
their weights next to each other on the rank axis. So the cost of a step depends on the adapters in the batch,
not on all loaded adapters. Each adapter's scaling is multiplied into the pack's B. The mask holds the weight
of each adapter for each request: 1, or its weight in a blend.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.embedded.model.config import ModelConfig
from server.request import AdapterMix

MAX_MIXES = 1024
"""Maximum number of combinations of adapters and weights whose masks a pack caches."""

Floats = NDArray[np.floating]


class Pack:
    """A pack: the LoRA weights of several adapters, side by side along the rank axis."""

    def __init__(
        self, config: ModelConfig, adapters: Mapping[str, AdapterWeights], dtype: str = "float32"
    ) -> None:
        self.digests = frozenset(adapters)
        self.widths: dict[str, int] = {}
        """Maps each matrix product to its number of LoRA rank columns."""
        self.arrays: dict[str, Floats] = {}
        """Maps each name of a graph input to its array."""
        self._spans: dict[tuple[str, str], slice] = {}
        self.dtype = dtype
        for group in config.groups:
            self._lay_out(group, config, adapters)
            for layer in range(config.layers):
                self._fill(group, layer, config, adapters)
        self._mixes: dict[AdapterMix, int] = {}
        self._tables = {group: np.zeros((0, width), dtype=dtype) for group, width in self.widths.items()}

    @property
    def rank(self) -> int:
        """Sum of the LoRA rank columns over all matrix products."""
        return sum(self.widths.values())

    @property
    def size(self) -> int:
        """Size of the pack's arrays in bytes."""
        return sum(array.nbytes for array in self.arrays.values())

    def masks(self, mixes: Sequence[AdapterMix]) -> dict[str, Floats]:
        """Return how strongly each request of a batch uses each adapter of the pack.

        `mixes` holds each request's adapters with their weights; the pack must contain all of them. Maps each
        matrix product to a mask [requests, 1, rank columns].
        """
        if len(self._mixes) > MAX_MIXES:
            self._mixes.clear()
        rows = [self._mixes.get(adapter_mix, -1) for adapter_mix in mixes]
        if -1 in rows:
            self._learn(mixes)
            rows = [self._mixes[adapter_mix] for adapter_mix in mixes]
        return {group: self._tables[group][rows][:, None] for group, width in self.widths.items() if width}

    def _learn(self, mixes: Iterable[AdapterMix]) -> None:
        for adapter_mix in mixes:
            self._mixes.setdefault(adapter_mix, len(self._mixes))
        for group, width in self.widths.items():
            table = np.zeros((len(self._mixes), width), dtype=self.dtype)
            for adapter_mix, row in self._mixes.items():
                for digest, weight in adapter_mix:
                    table[row, self._spans[digest, group]] += weight
            self._tables[group] = table

    def _lay_out(self, group: str, config: ModelConfig, adapters: Mapping[str, AdapterWeights]) -> None:
        """Assign each adapter its rank columns in the matrix product `group`: as many as it needs in the
        layer where it needs most.
        """
        start, modules = 0, config.groups[group]
        for digest, weights in adapters.items():
            width = max(
                sum(low.rank for module in modules if (low := weights.modules.get((layer, module))))
                for layer in range(config.layers)
            )
            self._spans[digest, group] = slice(start, start + width)
            start += width
        self.widths[group] = start

    def _fill(
        self, group: str, layer: int, config: ModelConfig, adapters: Mapping[str, AdapterWeights]
    ) -> None:
        modules, shapes = config.groups[group], config.shapes
        outs = [shapes[module][0] for module in modules]
        features, width = shapes[modules[0]][1], self.widths[group]
        a = np.zeros((features, width), dtype=self.dtype)
        b = np.zeros((width, sum(outs)), dtype=self.dtype)
        for digest, weights in adapters.items():
            column, out = self._spans[digest, group].start, 0
            for module, size in zip(modules, outs, strict=True):
                low = weights.modules.get((layer, module))
                if low is not None:
                    a[:, column : column + low.rank] = low.a.T
                    b[column : column + low.rank, out : out + size] = low.b.T * np.float32(low.scaling)
                    column += low.rank
                out += size
        self.arrays[f"lora_a.{group}.{layer}"], self.arrays[f"lora_b.{group}.{layer}"] = a, b


class AdapterStore:
    """Holds the loaded adapters, and a cache of recently built packs (several adapters' LoRA weights side by
    side).
    """

    def __init__(self, config: ModelConfig, pack_bytes: int, dtype: str = "float32") -> None:
        self._config, self._pack_bytes, self._dtype = config, pack_bytes, dtype
        self._adapters: dict[str, AdapterWeights] = {}
        self._packs: OrderedDict[frozenset[str], Pack] = OrderedDict()
        self._base = Pack(config, {}, dtype)

    @property
    def base(self) -> Pack:
        """The pack without adapters, for a batch whose requests all use the base model alone."""
        return self._base

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Add an adapter's weights. Raises `ValueError` if the adapter does not fit the base model."""
        shapes = self._config.shapes
        for (layer, module), low in weights.modules.items():
            if module not in shapes:
                raise ValueError(
                    f"the adapter changes the module {module!r}, which the base model does not have; modules "
                    f"that an adapter can change: {', '.join(shapes)}"
                )
            if not 0 <= layer < self._config.layers:
                raise ValueError(
                    f"the adapter changes layer {layer}, but the base model has only {self._config.layers} "
                    "layers, numbered from 0; use an adapter of this base model"
                )
            out, features = shapes[module]
            if low.a.shape != (low.rank, features) or low.b.shape != (out, low.rank):
                raise ValueError(
                    f"the adapter's matrices for {module} in layer {layer} have the shapes A "
                    f"{list(low.a.shape)} and B {list(low.b.shape)}; the base model needs A [rank, "
                    f"{features}] and B [{out}, rank]"
                )
        if digest not in self._adapters:
            self._adapters[digest] = weights

    def unload(self, digest: str) -> None:
        """Remove an adapter, and every pack that contains it.

        Raises `ValueError` if the adapter is not loaded.
        """
        if self._adapters.pop(digest, None) is None:
            raise ValueError(f"adapter {digest} is not loaded, so it cannot be unloaded")
        for key in [key for key in self._packs if digest in key]:
            del self._packs[key]

    def pack(self, active: frozenset[str], current: Pack) -> Pack:
        """Return a pack that contains the adapters `active`, with their LoRA weights side by side.

        This is `current`, the pack of the previous run, if it contains all of them and is at most twice as
        wide as needed. Otherwise it is a pack of exactly these adapters. Raises `ValueError` if an adapter is
        not loaded.
        """
        if not active:
            return self._base
        if current.digests == active:
            return current
        missing = active - self._adapters.keys()
        if missing:
            raise ValueError(f"adapter {min(missing)} is not loaded in the engine; load it first")
        if active < current.digests and self._fits(active, current):
            return current
        if active in self._packs:
            self._packs.move_to_end(active)
            return self._packs[active]
        return self._build(active)

    def holds(self, pack: Pack) -> bool:
        """Return True if the pack of adapters is still cached, so that it may be used."""
        return pack is self._base or self._packs.get(pack.digests) is pack

    def _fits(self, active: frozenset[str], pack: Pack) -> bool:
        return pack.rank <= 2 * sum(self._rank(digest) for digest in active)

    def _rank(self, digest: str) -> int:
        """Estimate how many LoRA rank columns an adapter adds to a pack: the sum of the largest ranks of its
        linear modules.
        """
        modules = self._adapters[digest].modules
        widest: dict[str, int] = {}
        for (_, module), low in modules.items():
            widest[module] = max(widest.get(module, 0), low.rank)
        return sum(widest.values())

    def _build(self, active: frozenset[str]) -> Pack:
        pack = Pack(self._config, {digest: self._adapters[digest] for digest in sorted(active)}, self._dtype)
        self._packs[active] = pack
        while len(self._packs) > 1 and sum(kept.size for kept in self._packs.values()) > self._pack_bytes:
            self._packs.popitem(last=False)
        return pack
