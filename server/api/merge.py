"""Several generations read as one stream, each delta with the index of its generation."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from server.request import Delta


async def merged(sources: Sequence[AsyncGenerator[Delta]]) -> AsyncGenerator[list[tuple[int, Delta]]]:
    """Yield what has arrived since the last look, in order; a lone source is read without a task of its own.

    The first error ends all of them. Closing this generator closes the sources.
    """
    if len(sources) == 1:
        async with aclosing(sources[0]) as source:
            async for delta in source:
                yield [(0, delta)]
        return
    arrivals: asyncio.Queue[tuple[int, Delta | BaseException | None]] = asyncio.Queue()
    pumps = [asyncio.create_task(_pump(index, source, arrivals)) for index, source in enumerate(sources)]
    try:
        live = len(sources)
        while live:
            batch = [await arrivals.get()]
            while not arrivals.empty():
                batch.append(arrivals.get_nowait())
            deltas: list[tuple[int, Delta]] = []
            for index, item in batch:
                if isinstance(item, Delta):
                    deltas.append((index, item))
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
    index: int,
    source: AsyncGenerator[Delta],
    arrivals: asyncio.Queue[tuple[int, Delta | BaseException | None]],
) -> None:
    try:
        async with aclosing(source):
            async for delta in source:
                arrivals.put_nowait((index, delta))
        arrivals.put_nowait((index, None))
    except Exception as error:
        arrivals.put_nowait((index, error))
