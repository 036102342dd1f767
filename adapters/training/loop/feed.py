"""What a trainer is fed: the batch of each step, from a source whose place can be kept and found again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol

import torch


@dataclass(frozen=True, slots=True)
class TrainingBatch:
    """Token ids, int64 (rows, length), and which of them count for the loss, bool of the same shape."""

    ids: torch.Tensor
    counts: torch.Tensor
    positions: torch.Tensor | None = None
    """int64 (rows, length): each token's place in its document, which attends to itself alone; None where a
    row is one text."""

    def rows(self, chosen: slice) -> TrainingBatch:
        """Some of the rows."""
        positions = self.positions[chosen] if self.positions is not None else None
        return TrainingBatch(self.ids[chosen], self.counts[chosen], positions)

    def to(self, device: torch.device) -> TrainingBatch:
        """The same on `device`."""
        positions = self.positions.to(device) if self.positions is not None else None
        return TrainingBatch(self.ids.to(device), self.counts.to(device), positions)

    @property
    def fresh(self) -> int:
        """How many tokens are new: the first of a packed row was the last of the row before."""
        return self.ids.numel() - (len(self.ids) if self.positions is not None else 0)

    @property
    def targets(self) -> int:
        """How many tokens are predicted and count."""
        return int(self.counts[:, 1:].sum())


MakeBatch = Callable[[int], TrainingBatch]
"""The batch of a step, which depends on the step's number alone."""


class Feed(Protocol):
    """A source of batches, asked for them in order."""

    def batch(self, step: int) -> TrainingBatch:
        """The batch of `step`, over all processes."""
        ...

    def state(self) -> Mapping[str, Any]:
        """Where it is, as plain JSON."""
        ...

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from where `state` was taken."""
        ...


@dataclass(frozen=True, slots=True)
class StepFeed:
    """A feed whose batches depend on the step alone."""

    batches: MakeBatch

    def batch(self, step: int) -> TrainingBatch:
        """The batch of `step`."""
        return self.batches(step)

    def state(self) -> Mapping[str, Any]:
        """Nothing to keep."""
        return {}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Nothing to find."""
