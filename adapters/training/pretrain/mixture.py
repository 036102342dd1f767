"""Mix several corpora into training batches: choose the corpus of each sequence in a batch, and collect the
held-out sequences.
"""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch

from adapters.training.loop.feed import TrainingBatch
from adapters.training.loop.schedule import Phase
from adapters.training.pretrain.corpus import Corpus
from adapters.training.pretrain.stream import DocumentStream, DocumentTokens, Encode, PackedRows


class CorpusFeed:
    """Training batches without padding. The corpus of each sequence is drawn at random, in proportion to the
    corpora's weights.
    """

    def __init__(
        self,
        corpora: Sequence[Corpus],
        encode: Encode,
        phases: Sequence[Phase],
        *,
        steps: int,
        seed: int,
        shuffle: int,
    ) -> None:
        self._weights = [corpus.weight for corpus in corpora]
        self._rows = [
            PackedRows(DocumentStream(corpus, encode, seed=seed + number, shuffle=shuffle))
            for number, corpus in enumerate(corpora)
        ]
        self._phases, self._steps, self._seed, self._fill = phases, steps, seed, encode.fill
        self._drawn = 0

    @property
    def streams(self) -> list[DocumentStream]:
        """The stream of documents of each corpus."""
        return [rows.stream for rows in self._rows]

    def batch(self, step: int) -> TrainingBatch:
        """Return the training batch of `step`. Call this for the steps in order."""
        phases = self._phases
        phase = next(phase for phase in phases if step < phase.until * self._steps or phase is phases[-1])
        found = [self._draw(phase.length) for _ in range(phase.rows)]
        return batch_of(found, phase.length, self._fill)

    def _draw(self, length: int) -> DocumentTokens:
        numbers = range(len(self._rows))
        chosen = random.Random(f"{self._seed}/{self._drawn}").choices(numbers, self._weights)[0]
        self._drawn += 1
        row = self._rows[chosen].row(length)
        assert row is not None, "a stream of training data must never end"
        return row

    def state(self) -> Mapping[str, Any]:
        """Return the position in each corpus as JSON, to save it in a checkpoint."""
        return {"drawn": self._drawn, "corpora": [rows.state() for rows in self._rows]}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that an earlier call of `state` returned."""
        self._drawn = state["drawn"]
        for rows, kept in zip(self._rows, state["corpora"], strict=True):
            rows.restore(kept)


def held_out_batch(
    corpora: Sequence[Corpus], encode: Encode, *, rows: int, length: int, shuffle: int, multiple: int = 1
) -> TrainingBatch | None:
    """Return up to about `rows` sequences of held-out documents as one batch, divided among the corpora by
    their weights. None if no document is held out.

    Empty sequences are added until their number is a multiple of `multiple`, the number of processes.
    """
    total = sum(corpus.weight for corpus in corpora)
    found: list[DocumentTokens] = []
    for corpus in corpora:
        if not corpus.held_out:
            continue
        source = PackedRows(DocumentStream(corpus, encode, seed=0, shuffle=shuffle, held=True))
        for _ in range(max(1, round(rows * corpus.weight / total))):
            if (row := source.row(length)) is None:
                break
            found.append(row)
    if not any(row.counts[1:].any() for row in found):
        return None
    nothing = DocumentTokens(np.zeros(0, np.int64), np.zeros(0, np.bool_), np.zeros(0, np.int64))
    return batch_of([*found, *[nothing] * (-len(found) % multiple)], length, encode.fill)


def batch_of(rows: Sequence[DocumentTokens], length: int, fill: int) -> TrainingBatch:
    """Return rows of at most `length` + 1 tokens as one batch. Shorter rows are padded with the token `fill`,
    which does not count for the loss.
    """
    shape = (len(rows), length + 1)
    ids, counts = np.full(shape, fill, np.int64), np.zeros(shape, np.bool_)
    positions = np.zeros(shape, np.int64)
    for number, row in enumerate(rows):
        size = len(row.ids)
        ids[number, :size], counts[number, :size] = row.ids, row.counts
        positions[number, :size] = row.positions
    return TrainingBatch(torch.from_numpy(ids), torch.from_numpy(counts), torch.from_numpy(positions))
