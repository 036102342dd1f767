"""The interface through which the engine's loop runs a graph on a device, with KV memory and adapters."""

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
    """One token to compute: `token` at `position` of `row`. All earlier positions are computed already."""

    row: int
    token: int
    position: int
    adapter_mix: AdapterMix


class Runner(Protocol):
    """Runs the graph. Use it in one thread only. A row is the part of the KV memory that holds one sequence;
    rows are numbered from 0.
    """

    @property
    def rows(self) -> int:
        """Number of rows in the KV memory."""
        ...

    @property
    def vocabulary(self) -> int:
        """Number of logits for each position: the size of the vocabulary."""
        ...

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute `tokens` at positions `start`… of `row`; return logits [len(outputs), vocabulary].

        `outputs` holds the indices of the tokens whose logits are wanted, ascending; it may be empty. The
        array is valid until the next call.
        """
        ...

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        """Compute one token for each of `rows` (ascending, distinct); return logits [len(rows), vocabulary].

        Other rows keep their contents. The array is valid until the next call.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length) from row `source` to row `target`."""
        ...

    def release(self, row: int) -> None:
        """Drop a row's contents, and return its memory to the system if that is supported."""
        ...

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Make an adapter resident. Raises `ValueError` if it does not fit the graph."""
        ...

    def unload(self, digest: str) -> None:
        """Remove an adapter that no row uses."""
        ...

    def close(self) -> None:
        """Release the session and its memory."""
        ...
