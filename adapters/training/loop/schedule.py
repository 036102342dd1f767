"""Length and learning rates of a base's training. Recipes and the command line read it without torch."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Schedule:
    """The learning rate warms up, stays constant, and falls linearly to zero (WSD). Raises `ValueError`."""

    steps: int
    matrix_rate: float = 4e-3
    """Peak learning rate of Muon, scaled to match AdamW's update size."""
    rate: float = 3e-3
    """Peak learning rate of AdamW, for embeddings and norms."""
    warmup: int = 50
    decay: float = 0.4
    """Share of the steps over which the rate falls to zero."""
    weight_decay: float = 0.05
    clip: float = 1.0
    """Maximum norm of the gradient; larger gradients are clipped to it."""
    compiled: bool = False
    """Compile the model for batches of the first one's shape if g++ is installed; about 1.3 times as fast."""

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise ValueError(f"steps is {self.steps}; it must be at least 1")
        if not 0 < self.decay <= 1:
            raise ValueError(f"decay is {self.decay}; it must be above 0 and at most 1")
        if self.warmup < 0:
            raise ValueError(f"warmup is {self.warmup}; it must be at least 0")

    def factor(self, step: int) -> float:
        """Return the share of the peak rate at `step`."""
        fall = self.decay * self.steps
        return min((step + 1) / max(self.warmup, 1), 1.0, (self.steps - step) / fall)


@dataclass(frozen=True, slots=True, kw_only=True)
class Phase:
    """Part of a run, up to `until` (a share of the steps), with batches of `rows` × `length` tokens."""

    until: float
    rows: int
    length: int
