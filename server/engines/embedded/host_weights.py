"""Keeps the weights of evicted adapters in host memory, so that these adapters can be loaded again without
reading files.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from adapters.lora.weights import AdapterWeights


class HostWeights:
    """Keeps the weights of up to `most` evicted adapters in host memory; the adapter evicted longest ago is
    dropped first.

    Not thread-safe: use it on the event loop only.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._resident: dict[str, AdapterWeights] = {}
        self._kept: OrderedDict[str, AdapterWeights] = OrderedDict()

    @property
    def kept(self) -> Collection[str]:
        """Digests of the evicted adapters whose weights are kept in host memory."""
        return self._kept.keys()

    def get(self, digest: str) -> AdapterWeights | None:
        """Return an evicted adapter's weights from host memory; None if they are not kept."""
        return self._kept.get(digest)

    def loaded(self, digest: str, weights: AdapterWeights) -> None:
        """Record that the adapter was loaded into an adapter slot of the engine, with these weights."""
        self._kept.pop(digest, None)
        if self._most:
            self._resident[digest] = weights

    def left(self, digest: str, *, keep: bool) -> None:
        """Record that the adapter was unloaded from its adapter slot.

        With `keep`, its weights are kept in host memory.
        """
        weights = self._resident.pop(digest, None)
        if keep and weights is not None:
            self._kept[digest] = weights
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        elif not keep:
            self._kept.pop(digest, None)
