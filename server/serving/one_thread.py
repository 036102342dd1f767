"""Runs slow work in a worker thread, one call at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

SMALL = 8 * 1024
"""Maximum size in bytes of a request whose work runs on the event loop, since it takes less than a
millisecond.
"""

WorkResult = TypeVar("WorkResult")


class Aside(Protocol):
    """Interface that runs work whose time grows with a request's size: small work at once, large work in a
    worker thread.
    """

    def __call__(self, work: Callable[[], WorkResult], /) -> Awaitable[WorkResult]:
        """Run `work` at once if it is small, else in the process's one worker thread. Return its result or
        raise its error.
        """
        ...


class OneThread:
    """Runs work in a worker thread, one call after the other, in the order of the calls.

    A running thread cannot be stopped. So if a caller is cancelled, the next call still waits until the
    cancelled caller's work has ended. Clients that disconnect can therefore never have more than one call
    running.
    """

    def __init__(self) -> None:
        self._turn = asyncio.Semaphore(1)

    async def run(self, work: Callable[[], WorkResult]) -> WorkResult:
        """Run `work` in the worker thread, and return its result or raise its error."""
        await self._turn.acquire()
        task = asyncio.create_task(asyncio.to_thread(work))
        task.add_done_callback(lambda _: self._turn.release())
        return await asyncio.shield(task)

    async def run_sized(self, size: int, work: Callable[[], WorkResult]) -> WorkResult:
        """Run `work` and return its result. If `size` in bytes is small, run it at once without a thread."""
        return work() if size <= SMALL else await self.run(work)
