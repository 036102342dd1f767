"""An event loop whose time jumps to the next timer, so that what happens depends on no machine."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

Result = TypeVar("Result")


class _Jumping(selectors.DefaultSelector):
    """Takes a wait for the next timer as over at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is not None:
            self.now += max(0.0, timeout)
        return super().select(timeout if timeout is None else 0)


class VirtualClock(asyncio.SelectorEventLoop):
    """An event loop for work that waits for timers alone, neither for threads nor for sockets."""

    def __init__(self) -> None:
        self._jumping = _Jumping()
        super().__init__(self._jumping)

    def time(self) -> float:
        """Seconds since the loop was made, of which none has passed."""
        return self._jumping.now


def run_at_once(work: Coroutine[Any, Any, Result]) -> Result:
    """Run `work` like `asyncio.run`, without waiting for its timers."""
    with asyncio.Runner(loop_factory=VirtualClock) as runner:
        return runner.run(work)
