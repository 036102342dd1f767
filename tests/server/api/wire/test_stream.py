"""Streams: several as one."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest

from server.api.rendering.answers import gather
from server.errors import EngineError
from server.request import Delta, Deltas
from server.serving.fan_in import merge_streams

pytestmark = pytest.mark.anyio


class Source:
    """Yields numbered deltas, and remembers how it ended."""

    def __init__(self, count: int, *, fails: bool = False, pause: float = 0.0) -> None:
        self.count, self.fails, self.pause = count, fails, pause
        self.made, self.closed = 0, False

    async def deltas(self, index: int = 0) -> Deltas:
        try:
            for number in range(self.count):
                await asyncio.sleep(self.pause)
                self.made += 1
                yield [(index, Delta(f"{number} "))]
            if self.fails:
                raise EngineError("broken")
        finally:
            self.closed = True


@pytest.mark.parametrize("count", [1, 2, 5])
async def test_every_delta_comes_once_and_in_order(count: int) -> None:
    sources = [Source(index + 2) for index in range(count)]
    answers = await gather(merge_streams([source.deltas(i) for i, source in enumerate(sources)]), count)
    assert [answer.text for answer in answers] == [
        "".join(f"{n} " for n in range(index + 2)) for index in range(count)
    ]
    assert all(source.closed for source in sources)


async def test_what_waits_is_read_at_once() -> None:
    async with aclosing(merge_streams([Source(3).deltas(), Source(3).deltas()])) as stream:
        first = await anext(stream)
        await asyncio.sleep(0.01)
        second = await anext(stream)
        rest = [delta async for deltas in stream for delta in deltas]
    assert len(first) + len(second) + len(rest) == 6
    assert len(second) > 1


async def test_the_parts_wait_while_nobody_reads() -> None:
    sources = [Source(1000) for _ in range(3)]
    async with aclosing(merge_streams([source.deltas() for source in sources])) as stream:
        await anext(stream)
        await asyncio.sleep(0.05)
        assert all(source.made <= 6 for source in sources)


@pytest.mark.parametrize("others", [0, 2])
async def test_an_error_ends_all(others: int) -> None:
    slow = [Source(1000, pause=0.01) for _ in range(others)]
    broken = Source(2, fails=True)
    with pytest.raises(EngineError, match="broken"):
        await gather(merge_streams([source.deltas() for source in (broken, *slow)]), 1 + others)
    assert all(source.closed for source in (broken, *slow))


@pytest.mark.parametrize("count", [1, 3])
async def test_closing_the_whole_closes_the_parts(count: int) -> None:
    sources = [Source(1000) for _ in range(count)]
    async with aclosing(merge_streams([source.deltas() for source in sources])) as stream:
        await anext(stream)
    assert all(source.closed for source in sources)


@pytest.mark.parametrize("count", [1, 3])
async def test_cancelling_the_reader_closes_the_parts(count: int) -> None:
    sources = [Source(1000, pause=0.001) for _ in range(count)]
    task = asyncio.create_task(
        gather(merge_streams([source.deltas(i) for i, source in enumerate(sources)]), count)
    )
    await asyncio.sleep(0.02)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert all(source.closed for source in sources)


async def test_a_part_without_an_end_is_closed_with_the_whole() -> None:
    closed = asyncio.Event()

    async def endless() -> Deltas:
        try:
            yield [(0, Delta("x"))]
            await asyncio.Event().wait()
        finally:
            closed.set()

    async with asyncio.timeout(3):
        async with aclosing(merge_streams([endless(), Source(1).deltas(1)])) as stream:
            await anext(stream)
    assert closed.is_set()
