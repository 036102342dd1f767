"""The settings of canaries and shadows."""

from __future__ import annotations

from dataclasses import dataclass

from server.config.values import within


@dataclass(frozen=True, slots=True, kw_only=True)
class RolloutOptions:
    """The `rollout:` section: when a canary or a shadow is worse than the active version."""

    automatic: bool = True
    """End a canary or shadow that is worse; no only measures it."""
    min_requests: int = 20
    """Answers of a version before it is judged."""
    error_margin: float = 0.02
    """Share of answers, 0.02 being two of a hundred, by which it may fail more than the active version."""
    latency_ratio: float = 2.0
    """How many times the active version's median times to and between tokens it may take."""
    window_seconds: float = 600.0
    """Seconds of answers that are compared."""

    def __post_init__(self) -> None:
        within("rollout.min_requests", self.min_requests, 1, 4096)
        within("rollout.error_margin", self.error_margin, 0, 1)
        within("rollout.latency_ratio", self.latency_ratio, 1, None)
        within("rollout.window_seconds", self.window_seconds, 1, None)
