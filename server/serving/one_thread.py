"""Slow work in a worker thread, one piece at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TypeVar

WorkResult = TypeVar("WorkResult")


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
