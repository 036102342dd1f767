"""Find examples that repeat earlier ones, in data sets of any size, with about 190 bytes of memory for each
example.

Texts that may be similar are read again from their files and compared exactly. Each example is compared with
at most four earlier ones, so the work is linear except for sorting.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from adapters.datasets.minhash import BANDS, Hashes, bands, key, shingles, similarity

RowNumbers = NDArray[np.int64]

_BLOCK = 512
_CANDIDATES = 4
_NONE = -1


@dataclass(frozen=True, slots=True)
class Repeat:
    """An example (`row`) that repeats an earlier example (`earlier`). Both are numbers, counted from 0 in the
    order of calls to `Index.add`.
    """

    row: int
    earlier: int
    similarity: float
    """Jaccard similarity of the two examples. It is 1 if their texts are equal, or if a test example has the
    prompt of a training example.
    """
    leak: bool
    """True if the earlier example is training data and the repeating example is test data."""


class Index:
    """Collects training examples, then test examples, and finds examples that repeat earlier ones."""

    def __init__(self) -> None:
        self._texts, self._prompts = array("Q"), array("Q")
        self._waiting: list[Hashes] = []
        self._bands: list[Hashes] = []
        self._training = 0

    def __len__(self) -> int:
        return len(self._texts)

    def add(self, prompt: str, answer: str, *, test: bool = False) -> None:
        """Add one example. All training examples must be added before the first test example."""
        if not test:
            assert self._training == len(self), (
                "all training examples must be added before the first test example"
            )
            self._training += 1
        text = whole_text(prompt, answer)
        self._texts.append(key(text))
        self._prompts.append(key(prompt))
        self._waiting.append(shingles(text))
        if len(self._waiting) == _BLOCK:
            self._flush()

    def repeats(self, threshold: float, text_of: Callable[[int], str]) -> Iterator[Repeat]:
        """Yield a `Repeat` for each example that repeats an earlier example, in the order of `add`.

        An example repeats another if both are training or both test examples with the same text, if a test
        example has the prompt of a training example, or if the similarity is at least `threshold`. `text_of`
        must return the `whole_text` of an example, given its number.
        """
        self._flush()
        same, leaked = self._same_text(), self._same_prompt()
        candidates = self._candidates(fresh=same == _NONE)

        @lru_cache(2048)
        def read(row: int) -> Hashes:
            return shingles(text_of(row))

        for row in range(len(self)):
            if leaked[row] != _NONE:
                yield Repeat(row, int(leaked[row]), 1.0, leak=True)
            elif same[row] != _NONE:
                yield Repeat(row, int(same[row]), 1.0, leak=False)
            elif candidates[row, 0] != _NONE:
                found = self._nearest(row, candidates[row], threshold, read)
                if found is not None:
                    yield found

    def _nearest(
        self, row: int, candidates: RowNumbers, threshold: float, read: Callable[[int], Hashes]
    ) -> Repeat | None:
        scored = [(int(other), similarity(read(row), read(int(other)))) for other in candidates if other >= 0]
        found = [
            Repeat(row, other, score, leak=other < self._training <= row)
            for other, score in scored
            if score >= threshold
        ]
        return max(found, key=lambda one: (one.leak, one.similarity, -one.earlier), default=None)

    def _flush(self) -> None:
        if self._waiting:
            self._bands.append(bands(self._waiting))
            self._waiting.clear()

    def _same_text(self) -> RowNumbers:
        """Return, for each example, the number of the first example with the same text, searching training
        and test examples separately. The value is -1 if that is the example itself.
        """
        found = np.full(len(self), _NONE, np.int64)
        texts = np.frombuffer(self._texts, np.uint64)
        for start, end in ((0, self._training), (self._training, len(self))):
            _, firsts, inverse = np.unique(texts[start:end], return_index=True, return_inverse=True)
            earlier = firsts[inverse] + start
            rows = np.arange(start, end)
            found[start:end] = np.where(earlier == rows, _NONE, earlier)
        return found

    def _same_prompt(self) -> RowNumbers:
        """Return, for each example, the number of the first training example with the same prompt. The value
        is -1 for training examples and for prompts not in the training data.
        """
        found = np.full(len(self), _NONE, np.int64)
        if self._training == 0:
            return found
        prompts = np.frombuffer(self._prompts, np.uint64)
        known, firsts = np.unique(prompts[: self._training], return_index=True)
        asked = prompts[self._training :]
        places = np.minimum(np.searchsorted(known, asked), len(known) - 1)
        found[self._training :] = np.where(known[places] == asked, firsts[places], _NONE)
        return found

    def _candidates(self, fresh: NDArray[np.bool_]) -> NDArray[np.int64]:
        """Return, for each example, the numbers of up to four earlier examples that may be similar, padded
        with -1.

        For each MinHash band, the candidates are the first example with the same band hash and the latest
        such example before this one. Examples that are False in `fresh` repeat an earlier text exactly and
        are skipped.
        """
        found = np.full((len(self), _CANDIDATES), _NONE, np.int64)
        rows = np.flatnonzero(fresh)
        if len(rows) < 2:
            return found
        for band in range(BANDS):
            hashes = np.concatenate([block[:, band] for block in self._bands])[rows]
            order = np.argsort(hashes, kind="stable")
            starts = _run_starts(hashes[order])
            ordered = rows[order]
            places = np.arange(len(ordered))
            inside = starts < places
            for other in (starts, places - 1):
                _put(found, ordered[inside], ordered[other[inside]])
        return found


def whole_text(prompt: str, answer: str) -> str:
    """Return the text that represents an example when examples are compared: the prompt, a newline and the
    answer.
    """
    return f"{prompt}\n{answer}"


def _run_starts(values: Hashes) -> RowNumbers:
    """Return, for each position in the sorted array `values`, the first position with the same value."""
    new = np.concatenate([[True], values[1:] != values[:-1]])
    return np.maximum.accumulate(np.where(new, np.arange(len(values)), 0))


def _put(found: RowNumbers, rows: RowNumbers, others: RowNumbers) -> None:
    """Write each example number `others[i]` to the first free column of row `rows[i]` in the table `found`.
    Skip a number that the row already holds, or for which the row has no free column.
    """
    for column in range(_CANDIDATES):
        held = found[rows, column]
        free = held == _NONE
        found[rows[free], column] = others[free]
        left = ~free & (held != others)
        rows, others = rows[left], others[left]
