"""Batches for a trainer: one for each step, from a source whose position can be saved and restored."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Token ids, int64 (rows, length), and a bool mask of the same shape: True for tokens that count for the
    loss.
    """

    ids: torch.Tensor
    counts: torch.Tensor
    positions: torch.Tensor | None = None
    """int64 (rows, length): the position of each token in its own document, if a row can hold several. Tokens
    attend to tokens of the same document only. None if each row is one document."""

    def rows(self, chosen: slice) -> TrainingBatch:
        """Return some of the rows."""
        positions = self.positions[chosen] if self.positions is not None else None
        return TrainingBatch(self.ids[chosen], self.counts[chosen], positions)

    def to(self, device: torch.device) -> TrainingBatch:
        """Return the batch on `device`."""
        positions = self.positions.to(device) if self.positions is not None else None
        return TrainingBatch(self.ids.to(device), self.counts.to(device), positions)

    @property
    def fresh(self) -> int:
        """Number of tokens that no earlier row has. If rows are packed with several documents, the first
        token of each row is also the last one of the row before.
        """
        return self.ids.numel() - (len(self.ids) if self.positions is not None else 0)

    @property
    def targets(self) -> int:
        """Number of tokens that are predicted and count for the loss."""
        return int(self.counts[:, 1:].sum())


MakeBatch = Callable[[int], TrainingBatch]
"""Returns the batch of a step. It must depend on the step's number only."""


class Feed(Protocol):
    """A source of batches for consecutive steps."""

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of `step` for all processes together."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Return the present position as plain JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Continue from the position that `state` returned."""
        ...


@dataclass(frozen=True, slots=True)
class StepFeed:
    """A feed whose batches depend on the step only."""

    batches: MakeBatch

    def batch(self, step: int) -> TrainingBatch:
        """Return the batch of `step`."""
        return self.batches(step)

    def state(self) -> Mapping[str, Any]:
        """Return an empty state, since there is no position."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Do nothing, since there is no position."""
