"""The interface of runners: they run a base model's graph on a device, and hold its KV cache and adapters."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.request import AdapterMix


@dataclass(frozen=True, slots=True)
class DecodeRow:
    """One token to compute in a decode run: `token` at `position` of KV cache slot `row`.

    Earlier positions are computed already.
    """

    row: int
    token: int
    position: int
    adapter_mix: AdapterMix


class Runner(Protocol):
    """Runs a base model's graph on a device, and holds its KV cache. Not thread-safe: use it in one thread
    only.

    A row is a KV cache slot, which holds one sequence. Rows are numbered from 0.
    """

    @property
    def rows(self) -> int:
        """Number of rows (slots) in the KV cache; each holds one sequence."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of logits for each position: the size of the vocabulary."""
        ...

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute `tokens` in KV cache slot `row` from position `start` on; return logits [len(outputs),
        vocabulary].

        `outputs` holds the indices of the tokens whose logits are returned, ascending; it may be empty. The
        returned array is valid until the next call.
        """
        ...

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        """Compute one token for each KV cache slot in `rows` (ascending, distinct); return logits [len(rows),
        vocabulary].

        Other slots keep their contents. The returned array is valid until the next call.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy the keys and values of positions [0, length) from KV cache slot `source` to slot `target`."""
        ...

    def release(self, row: int) -> None:
        """Empty KV cache slot `row`, and return its memory to the system if this is supported."""
        ...

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Load an adapter's weights. Raises `ValueError` if the adapter does not fit the base model."""
        ...

    def unload(self, digest: str) -> None:
        """Unload an adapter. The caller makes sure that no running sequence uses it."""
        ...

    def close(self) -> None:
        """Release the runner's sessions and its KV cache."""
        ...
