"""Merges several streams into one stream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import TypeVar

from server.request import Delta, Deltas

SourceItem = TypeVar("SourceItem")


async def merge_streams(sources: Sequence[Deltas]) -> Deltas:
    """Yield the items that have arrived from any of `sources`. The first error ends all sources. Closing this
    generator closes the sources. While nobody reads it, each source stops after one more item.
    """
    async with aclosing(gather_arrivals(sources, len(sources))) as arrivals:
        async for batch in arrivals:
            deltas: list[tuple[int, Delta]] = []
            for _, item in batch:
                if isinstance(item, Exception):
                    raise item
                deltas += item
            yield deltas


async def gather_arrivals(
    sources: Sequence[AsyncGenerator[SourceItem]], most: int = 0
) -> AsyncGenerator[list[tuple[int, SourceItem | Exception]]]:
    """Yield the items that have arrived from any of `sources`, each with its source's index.

    An error is the last item of its source; the other sources continue. Closing this generator closes the
    sources. The sources pause while `most` items are unread; 0: they never pause.
    """
    arrivals: asyncio.Queue[tuple[int, SourceItem | Exception] | None] = asyncio.Queue(most)

    async def pump(number: int, source: AsyncGenerator[SourceItem]) -> None:
        try:
            async with aclosing(source):
                async for item in source:
                    await arrivals.put((number, item))
        except Exception as error:
            await arrivals.put((number, error))
        await arrivals.put(None)

    pumps = [asyncio.create_task(pump(number, source)) for number, source in enumerate(sources)]
    try:
        live = len(pumps)
        while live:
            batch = [await arrivals.get()]
            while not arrivals.empty():
                batch.append(arrivals.get_nowait())
            found = [item for item in batch if item is not None]
            live -= len(batch) - len(found)
            if found:
                yield found
    finally:
        for task in pumps:
            task.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)
