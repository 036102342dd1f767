"""Runs slow work in a worker thread, one piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

SMALL = 8 * 1024
"""Bytes of a request up to which its work is done at once: it takes less than a millisecond."""

WorkResult = TypeVar("WorkResult")


class Aside(Protocol):
    """Runs work whose time grows with a request: small work at once, large work outside the event loop."""

    def __call__(self, work: Callable[[], WorkResult], /) -> Awaitable[WorkResult]:
        """What `work` returns or raises."""
        ...


class OneThread:
    """Runs work in a thread, one piece after the other in the order of the calls.

    A thread cannot be stopped. So if a caller is cancelled, the next piece still waits until the cancelled
    caller's work has ended. Clients that disconnect can therefore never start more than one piece at a time.
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
        """Run `work` and return its result. If `size` is small, run it at once without a thread."""
        return work() if size <= SMALL else await self.run(work)
