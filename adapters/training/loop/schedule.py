"""Number of steps and learning rates for training a base model. This module does not need torch, so recipes
and the command line can import it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate schedule of a base model's training (warmup-stable-decay): the rate rises, stays
    constant, and falls linearly to zero. Raises `ValueError` for invalid values.
    """

    steps: int
    matrix_rate: float = 4e-3
    """Peak learning rate of Muon, which trains the matrices. Muon's updates are scaled to the size of
    AdamW's.
    """
    rate: float = 3e-3
    """Peak learning rate of AdamW. With Muon, AdamW trains only embeddings and norms."""
    warmup: int = 50
    decay: float = 0.4
    """Fraction of the steps, at the end, over which the learning rate falls to zero."""
    weight_decay: float = 0.05
    clip: float = 1.0
    """Maximum norm of the gradient. A larger gradient is scaled down to this norm."""
    compiled: bool = False
    """Compile the model for batches with the shape of the first batch, if g++ is installed. This makes
    training about 1.3 times as fast.
    """

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps, the length of training, is {self.steps}; it must be at least 1")
        if not 0 < self.decay <= 1:
            raise ValueError(
                f"decay, a fraction of the steps, is {self.decay}; it must be above 0 and at most 1"
            )
        if self.warmup < 0:
            raise ValueError(f"warmup, a number of steps, is {self.warmup}; it must be at least 0")

    def factor(self, step: int) -> float:
        """Return the learning rate at `step` as a fraction of its peak."""
        fall = self.decay * self.steps
        return min((step + 1) / max(self.warmup, 1), 1.0, (self.steps - step) / fall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """A phase of a training run with its own batch size. It lasts until the fraction `until` of the steps;
    each batch has `rows` sequences of `length` tokens.
    """

    until: float
    rows: int
    length: int
