"""Sends comments on a silent event stream, so that proxies do not close the connection."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import Self

SILENCE_SECONDS = 15.0
"""Seconds of silence after which a comment is sent. Most proxies close a connection after 30 or 60
seconds.
"""


class Heartbeat:
    """Calls `beat` inside `async with Heartbeat(beat) as heart:` after each `SILENCE_SECONDS` of silence.

    Call `heart.moved` after each write. `beat` runs in a separate task, never twice at the same time, and has
    finished or is cancelled when the block ends.
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
        """Note that data was sent, so that the silence begins anew. Fast, since it is called for
        every write.
        """
        self._last = self._loop.time()

    def _look(self) -> None:
        silent = self._loop.time() - self._last
        if silent >= self._seconds and (self._task is None or self._task.done()):
            self._last, silent = self._loop.time(), 0.0
            self._task = self._loop.create_task(self._run())
        self._timer = self._loop.call_later(max(0.001, self._seconds - silent), self._look)

    async def _run(self) -> None:
        await self._beat()
