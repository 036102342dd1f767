"""Several generations read as one stream."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing

from server.request import Delta, Deltas


async def merge_streams(sources: Sequence[Deltas]) -> Deltas:
    """Yield what has arrived from any of `sources` since the last look.

    The first error ends all of them. Closing this generator closes the sources. As long as nobody reads, the
    sources wait too, but for one piece of each.
    """
    arrivals: asyncio.Queue[list[tuple[int, Delta]] | BaseException | None] = asyncio.Queue(len(sources))
    pumps = [asyncio.create_task(_pump(source, arrivals)) for source in sources]
    try:
        live = len(sources)
        while live:
            batch = [await arrivals.get()]
            while not arrivals.empty():
                batch.append(arrivals.get_nowait())
            deltas: list[tuple[int, Delta]] = []
            for item in batch:
                if isinstance(item, list):
                    deltas += item
                elif item is None:
                    live -= 1
                else:
                    raise item
            if deltas:
                yield deltas
    finally:
        for pump in pumps:
            pump.cancel()
        await asyncio.gather(*pumps, return_exceptions=True)


async def _pump(
    source: Deltas, arrivals: asyncio.Queue[list[tuple[int, Delta]] | BaseException | None]
) -> None:
    try:
        async with aclosing(source):
            async for deltas in source:
                await arrivals.put(deltas)
        await arrivals.put(None)
    except Exception as error:
        await arrivals.put(error)
