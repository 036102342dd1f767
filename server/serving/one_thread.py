"""Slow work in a worker thread, one piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

SMALL = 8 * 1024
"""Bytes of a request up to which its work is done at once: it takes less than a millisecond."""

WorkResult = TypeVar("WorkResult")


class Aside(Protocol):
    """Runs work that grows with a request; of a large one not on the event loop."""

    def __call__(self, work: Callable[[], WorkResult], /) -> Awaitable[WorkResult]:
        """What `work` returns or raises."""
        ...


class OneThread:
    """Runs work in a thread, in the order in which it is asked for.

    A thread cannot be stopped: if whoever asked is cancelled, its work still holds the turn to its end, so
    that clients who leave cannot set off more than one piece at a time.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def run(self, work: Callable[[], WorkResult]) -> WorkResult:
        """What `work` returns or raises."""
        await self._turn.acquire()
        task = asyncio.create_task(asyncio.to_thread(work))
        task.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(task)

    async def run_sized(self, size: int, work: Callable[[], WorkResult]) -> WorkResult:
        """The same, but at once and without a thread if the work is about `size` bytes that are few."""
        return work() if size <= SMALL else await self.run(work)
