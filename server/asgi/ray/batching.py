"""Sends an answer's deltas between processes in batches, because a message for each token costs too much."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator
from contextlib import aclosing, suppress

from server.request import Delta


async def batch_deltas(
    source: AsyncGenerator[Delta, None], seconds: float
) -> AsyncGenerator[list[Delta], None]:
    """Yield deltas of `source` in batches: the first one at once, then at most one batch every `seconds`.

    The last batch is not delayed. An error of `source` is raised after all deltas that came before it.
    """
    waiting: list[Delta] = []
    some, ended = asyncio.Event(), asyncio.Event()

    async def read() -> None:
        try:
            async with aclosing(source):
                async for delta in source:
                    waiting.append(delta)
                    some.set()
        finally:
            ended.set()
            some.set()

    reader = asyncio.create_task(read())
    try:
        while True:
            await some.wait()
            sent = time.monotonic()
            some.clear()
            batch, waiting[:] = list(waiting), []
            if batch:
                yield batch
            if ended.is_set() and not waiting:
                break
            with suppress(TimeoutError):
                await asyncio.wait_for(ended.wait(), max(0.0, sent + seconds - time.monotonic()))
        await reader
    finally:
        reader.cancel()
        await asyncio.gather(reader, return_exceptions=True)
