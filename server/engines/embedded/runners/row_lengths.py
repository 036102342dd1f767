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
            raise ValueError(
                f"the number of KV cache rows (one per sequence) is {rows}, but must be at least 1"
            )
        if not 1 <= context <= most:
            raise ValueError(
                f"the context length {context} is not between 1 and {most} tokens, the base model's maximum"
            )
        self.context, self._vocabulary = context, vocabulary
        self.lengths = [0] * rows

    def check_row(self, row: int) -> None:
        """Raise `ValueError` if the KV cache has no slot `row`."""
        if not 0 <= row < len(self.lengths):
            raise ValueError(
                f"the KV cache has no row {row}; its rows are numbered from 0 to {len(self.lengths) - 1}"
            )

    def check_tokens(self, tokens: Sequence[int]) -> None:
        """Raise `ValueError` if a token id is outside the vocabulary."""
        wrong = next(
            (token for token in (min(tokens), max(tokens)) if not 0 <= token < self._vocabulary), None
        )
        if wrong is not None:
            raise ValueError(
                f"the token id {wrong} is outside the base model's vocabulary of {self._vocabulary} tokens; "
                "use this model's own tokenizer"
            )

    def check_prefill(self, row: int, start: int, tokens: Sequence[int], outputs: NDArray[np.int64]) -> None:
        """Check that a prefill from `start` on leaves no gap in KV cache slot `row`, and that `outputs` are
        ascending indices into `tokens`.
        """
        self.check_row(row)
        end = start + len(tokens)
        if not tokens or not 0 <= start <= self.lengths[row] or end > self.context:
            raise ValueError(
                f"cannot write positions {start} to {end} of KV cache row {row}: the row holds "
                f"{self.lengths[row]} of at most {self.context} tokens; new ones must follow without a gap"
            )
        if len(outputs) and not (
            outputs[0] >= 0 and outputs[-1] < len(tokens) and (np.diff(outputs) > 0).all()
        ):
            raise ValueError(
                f"outputs is {outputs.tolist()}, but must be ascending indices of the {len(tokens)} prefill "
                "tokens"
            )
        self.check_tokens(tokens)

    def check_decode(self, rows: Sequence[DecodeRow]) -> None:
        """Check that the KV cache slots of a decode run are in ascending order, and that no token leaves a
        gap in its slot.
        """
        if not rows:
            raise ValueError("the decode batch is empty; it must have at least one KV cache row")
        before = -1
        for entry in rows:
            if not before < entry.row < len(self.lengths):
                raise ValueError(
                    f"KV cache row {entry.row} follows row {before} in a decode batch: rows must be in "
                    f"ascending order and below {len(self.lengths)}"
                )
            held = self.lengths[entry.row]
            if not 0 <= entry.position <= held or entry.position >= self.context:
                raise ValueError(
                    f"cannot decode position {entry.position} of KV cache row {entry.row}: the row holds "
                    f"{held} of at most {self.context} tokens, and a new token must follow without a gap"
                )
            before = entry.row
        self.check_tokens([entry.token for entry in rows])

    def check_copy(self, source: int, target: int, length: int) -> None:
        """Check that both KV cache slots exist, and that slot `source` holds at least `length` positions."""
        self.check_row(source)
        self.check_row(target)
        if not 0 <= length <= self.lengths[source]:
            raise ValueError(
                f"cannot copy {length} positions of KV cache row {source}: the row holds "
                f"only {self.lengths[source]} positions"
            )
