"""What the rows of a KV memory hold, and the refusal of whatever lies outside of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from server.engines.embedded.runners.protocol import DecodeRow


class RowLengths:
    """How many positions each row holds. Every check raises `ValueError` that names what was asked for."""

    def __init__(self, rows: int, context: int, vocabulary: int, most: int) -> None:
        """`most`: positions that the model was made for."""
        if rows < 1:
            raise ValueError(f"rows {rows} has to be at least 1")
        if not 1 <= context <= most:
            raise ValueError(f"context {context} has to be within 1 and the model's {most}")
        self.context, self._vocabulary = context, vocabulary
        self.lengths = [0] * rows

    def check_row(self, row: int) -> None:
        """That the row exists."""
        if not 0 <= row < len(self.lengths):
            raise ValueError(f"row {row} has to be within 0 and {len(self.lengths) - 1}")

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """That all are in the vocabulary."""
        if min(tokens) < 0 or max(tokens) >= self._vocabulary:
            raise ValueError(f"a token is outside the vocabulary of {self._vocabulary}")

    def check_prefill(self, row: int, start: int, tokens: Sequence[int], outputs: NDArray[np.int64]) -> None:
        """That the tokens follow on what the row holds, and the outputs are among them, ascending."""
        self.check_row(row)
        end = start + len(tokens)
        if not tokens or not 0 <= start <= self.lengths[row] or end > self.context:
            raise ValueError(
                f"positions {start} to {end} of row {row}: it holds {self.lengths[row]} of {self.context}"
            )
        if len(outputs) and not (
            outputs[0] >= 0 and outputs[-1] < len(tokens) and (np.diff(outputs) > 0).all()
        ):
            raise ValueError(
                f"outputs {outputs.tolist()} are not ascending indices into {len(tokens)} tokens"
            )
        self.check_tokens(tokens)

    def check_decode(self, rows: Sequence[DecodeRow]) -> None:
        """That the rows ascend, and each token follows on what its row holds."""
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
        """That the source holds so much."""
        self.check_row(source)
        self.check_row(target)
        if not 0 <= length <= self.lengths[source]:
            raise ValueError(f"length {length}: row {source} holds {self.lengths[source]} positions")
