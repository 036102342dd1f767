"""Tracks how many tokens each KV cache slot (row) holds, and refuses calls that go beyond that."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.runners.protocol import DecodeRow


class RowLengths:
    """Holds the number of tokens in each KV cache slot (row).

    Every check raises `ValueError` with the values that were passed.
    """

    def __init__(self, rows: int, context: int, vocabulary: int, most: int) -> None:
        """Start with `rows` empty KV cache slots of `context` positions.

        `most` is the base model's maximum number of positions.
        """
        if rows < 1:
            raise ValueError(f"rows {rows} has to be at least 1")
        if not 1 <= context <= most:
            raise ValueError(f"context {context} has to be within 1 and the model's {most}")
        self.context, self._vocabulary = context, vocabulary
        self.lengths = [0] * rows

    def check_row(self, row: int) -> None:
        """Raise `ValueError` if the KV cache has no slot `row`."""
        if not 0 <= row < len(self.lengths):
            raise ValueError(f"row {row} has to be within 0 and {len(self.lengths) - 1}")

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise `ValueError` if a token id is outside the vocabulary."""
        if min(tokens) < 0 or max(tokens) >= self._vocabulary:
            raise ValueError(f"a token is outside the vocabulary of {self._vocabulary}")

    def check_prefill(self, row: int, start: int, tokens: Sequence[int], outputs: NDArray[np.int64]) -> None:
        """Check that a prefill from `start` on leaves no gap in KV cache slot `row`, and that `outputs` are
        ascending indices into `tokens`.
        """
        self.check_row(row)
        end = start + len(tokens)
        if not tokens or not 0 <= start <= self.lengths[row] or end > self.context:
            raise ValueError(
                f"cannot write positions {start} to {end} of row {row}: it holds {self.lengths[row]} tokens, "
                f"has room for {self.context}, and has no gaps"
            )
        if len(outputs) and not (
            outputs[0] >= 0 and outputs[-1] < len(tokens) and (np.diff(outputs) > 0).all()
        ):
            raise ValueError(
                f"outputs {outputs.tolist()} are not ascending indices into {len(tokens)} tokens"
            )
        self.check_tokens(tokens)

    def check_decode(self, rows: Sequence[DecodeRow]) -> None:
        """Check that the KV cache slots of a decode run are in ascending order, and that no token leaves a
        gap in its slot.
        """
        if not rows:
            raise ValueError("rows is empty")
        before = -1
        for entry in rows:
            if not before < entry.row < len(self.lengths):
                raise ValueError(
                    f"row {entry.row} after {before}: rows have to ascend, below {len(self.lengths)}"
                )
            held = self.lengths[entry.row]
            if not 0 <= entry.position <= held or entry.position >= self.context:
                raise ValueError(
                    f"position {entry.position} of row {entry.row}: it holds {held} of {self.context}"
                )
            before = entry.row
        self.check_tokens([entry.token for entry in rows])

    def check_copy(self, source: int, target: int, length: int) -> None:
        """Check that both KV cache slots exist, and that slot `source` holds at least `length` positions."""
        self.check_row(source)
        self.check_row(target)
        if not 0 <= length <= self.lengths[source]:
            raise ValueError(f"length {length}: row {source} holds {self.lengths[source]} positions")
