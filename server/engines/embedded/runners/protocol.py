"""The protocol between the engine's loop and a graph on a device, with its KV memory and adapters."""

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
    """One token to compute: `token` at `position` of `row`, whose positions below are computed."""

    row: int
    token: int
    position: int
    adapter_mix: AdapterMix


class Runner(Protocol):
    """Runs the graph. Called from one thread only. Rows are numbered from 0."""

    @property
    def rows(self) -> int:
        """Rows of the KV memory."""
        ...

    @property
    def vocabulary(self) -> int:
        """Logits per position."""
        ...

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        """Compute `tokens` at positions `start`… of `row`; logits [len(outputs), vocabulary].

        `outputs` are indices into `tokens`, ascending, possibly none. The array is valid until the next call.
        """
        ...

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        """Compute one token for each of `rows` (ascending, distinct); logits [len(rows), vocabulary].

        Other rows keep their contents. The array is valid until the next call.
        """
        ...

    def copy(self, source: int, target: int, length: int) -> None:
        """Copy keys and values of positions [0, length)."""
        ...

    def release(self, row: int) -> None:
        """The row's contents are no longer needed; give its memory back where the system can."""
        ...

    def load(self, digest: str, weights: AdapterWeights) -> None:
        """Make an adapter resident. Raises `ValueError` where it does not fit the graph."""
        ...

    def unload(self, digest: str) -> None:
        """Remove an adapter that no row uses."""
        ...

    def close(self) -> None:
        """Release the session and its memory."""
        ...
