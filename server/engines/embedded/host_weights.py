"""Weights of evicted adapters that stay in host memory, so that the next load reads no file."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection

from adapters.lora.weights import AdapterWeights


class HostWeights:
    """At most `most` evicted adapters, the least recently evicted first to go. On the event loop alone."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._resident: dict[str, AdapterWeights] = {}
        self._kept: OrderedDict[str, AdapterWeights] = OrderedDict()

    @property
    def kept(self) -> Collection[str]:
        """Digests of what is here and not in a slot."""
        return self._kept.keys()

    def get(self, digest: str) -> AdapterWeights | None:
        """What is kept of an adapter."""
        return self._kept.get(digest)

    def loaded(self, digest: str, weights: AdapterWeights) -> None:
        """The adapter has a slot."""
        self._kept.pop(digest, None)
        if self._most:
            self._resident[digest] = weights

    def left(self, digest: str, *, keep: bool) -> None:
        """The adapter has no slot any more; its weights stay here if they are to be kept."""
        weights = self._resident.pop(digest, None)
        if keep and weights is not None:
            self._kept[digest] = weights
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)
        elif not keep:
            self._kept.pop(digest, None)
