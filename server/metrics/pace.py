"""Measures how fast one answer is generated, from the call of the engine to the last token."""

from __future__ import annotations

import time


class Pace:
    """The times of one answer, from the call of the engine to the last token."""

    __slots__ = ("_begun", "_called", "_last", "_later")

    def __init__(self) -> None:
        self._called = time.perf_counter()
        self._begun = self._last = 0.0
        self._later = 0

    def tokens(self, count: int) -> None:
        """Record a delta of the answer, with `count` tokens."""
        if not count:
            return
        self._last = time.perf_counter()
        if self._begun:
            self._later += count
        else:
            self._begun = self._last

    @property
    def first(self) -> float | None:
        """Seconds from the call of the engine to the first token; None before that."""
        return self._begun - self._called if self._begun else None

    @property
    def between(self) -> float | None:
        """Mean seconds from token to token after the first delta; None before the second delta."""
        return (self._last - self._begun) / self._later if self._later else None


class TokenFlow:
    """Counts the tokens that one adapter generates. Use it on the event loop only, since it has no lock."""

    __slots__ = ("tokens",)

    def __init__(self) -> None:
        self.tokens = 0
