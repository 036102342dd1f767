"""Comments on a stream that is silent, so that no proxy between takes it for dead."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

SILENCE_SECONDS = 15.0
"""How long a stream says nothing before a comment is sent. Most proxies give up after 30 or 60 seconds."""


class Heartbeat:
    """`async with Heartbeat(beat) as heart:` calls `beat` whenever `heart.moved` was not for that long.

    `beat` runs in a task of its own, one at a time, and is over or cancelled when the block ends.
    """

    def __init__(self, beat: Callable[[], Awaitable[None]], seconds: float | None = None) -> None:
        self._beat = beat
        self._seconds = SILENCE_SECONDS if seconds is None else seconds
        self._loop = asyncio.get_running_loop()
        self._last = self._loop.time()
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        self._timer = self._loop.call_later(self._seconds, self._look)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._timer.cancel()
        if self._task is not None and not self._task.done():
            self._task.cancel()
            await asyncio.wait([self._task])

    def moved(self) -> None:
        """Something was sent. Called for every write, so it only notes the time."""
        self._last = self._loop.time()

    def _look(self) -> None:
        silent = self._loop.time() - self._last
        if silent >= self._seconds and (self._task is None or self._task.done()):
            self._last, silent = self._loop.time(), 0.0
            self._task = self._loop.create_task(self._run())
        self._timer = self._loop.call_later(max(0.001, self._seconds - silent), self._look)

    async def _run(self) -> None:
        await self._beat()
