"""The source of a training run's batches, one for each step. Its position can be saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """A training batch: int64 token ids of shape (rows, length), and a bool mask `counts` of the same shape,
    True for each token that counts for the loss.
    """

    ids: torch.Tensor
    counts: torch.Tensor
    positions: torch.Tensor | None = None
    """Position of each token in its own document, int64 of shape (rows, length), if a row can hold several
    documents. Attention then stays within a document. None if each row is treated as one document.
    """

    def rows(self, chosen: slice) -> TrainingBatch:
        """Return a batch with only the `chosen` rows (sequences)."""
        positions = self.positions[chosen] if self.positions is not None else None
        return TrainingBatch(self.ids[chosen], self.counts[chosen], positions)

    def to(self, device: torch.device) -> TrainingBatch:
        """Return a copy of the batch on `device`."""
        positions = self.positions.to(device) if self.positions is not None else None
        return TrainingBatch(self.ids.to(device), self.counts.to(device), positions)

    @property
    def fresh(self) -> int:
        """Number of tokens that are new in this batch. In packed rows, the first token of each row repeats
        the last token of the row before and is not counted.
        """
        return self.ids.numel() - (len(self.ids) if self.positions is not None else 0)

    @property
    def targets(self) -> int:
        """Number of tokens that the model has to predict and that count for the loss."""
        return int(self.counts[:, 1:].sum())


MakeBatch = Callable[[int], TrainingBatch]
"""A function that returns the training batch of a step. The batch may depend only on the step's number."""


class Feed(Protocol):
    """A source of training batches for consecutive steps, whose position can be saved and restored."""

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of `step`, with the sequences of all processes of the run."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Return the position in the source as plain JSON, to save it in a checkpoint."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from a position that an earlier call of `state` returned."""
        ...


@dataclass(frozen=True, slots=True)
class StepFeed:
    """A source of training batches in which each batch depends only on the number of its step."""

    batches: MakeBatch

    def batch(self, step: int) -> TrainingBatch:
        """Return the training batch of `step`."""
        return self.batches(step)

    def state(self) -> Mapping[str, Any]:
        """Return an empty state, because the batches do not depend on a position."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing, because the batches do not depend on a position."""
