"""Compare what two pieces of code cost, so that a slow or busy machine slows both."""

from __future__ import annotations

import time
from collections.abc import Callable


def least_seconds(*works: Callable[[], object], turns: int = 5) -> list[float]:
    """Return the least CPU seconds that each of `works` took in this thread, in their order.

    They take turns, so that whatever slows the machine for a moment does not slow one of them alone.
    """
    rounds = [[_seconds(work) for work in works] for _ in range(turns)]
    return [min(column) for column in zip(*rounds, strict=True)]


def _seconds(work: Callable[[], object]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began
