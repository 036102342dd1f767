"""Keeps weights of evicted adapters in host memory, so that loading them again need not read files."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from adapters.lora.weights import AdapterWeights


class HostWeights:
    """Keeps up to `most` evicted adapters, and drops the oldest. Use it on the event loop only."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._resident: dict[str, AdapterWeights] = {}
        self._kept: OrderedDict[str, AdapterWeights] = OrderedDict()

    @property
    def kept(self) -> Collection[str]:
        """Digests of kept adapters that are not in a slot."""
        return self._kept.keys()

    def get(self, digest: str) -> AdapterWeights | None:
        """Return the kept weights of an adapter; None if they are not kept."""
        return self._kept.get(digest)

    def loaded(self, digest: str, weights: AdapterWeights) -> None:
        """Note that the adapter now has a slot."""
        self._kept.pop(digest, None)
        if self._most:
            self._resident[digest] = weights

    def left(self, digest: str, *, keep: bool) -> None:
        """Record that the adapter has left its slot. With `keep`, keep its weights in host memory."""
        weights = self._resident.pop(digest, None)
        if keep and weights is not None:
            self._kept[digest] = weights
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        elif not keep:
            self._kept.pop(digest, None)
