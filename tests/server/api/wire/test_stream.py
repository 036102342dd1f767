"""Streams: several as one, and work that nobody waits for any more."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from server.api.rendering.answers import gather
from server.api.wire.disconnect import cancel_on_disconnect
from server.errors import EngineError
from server.exchange import Exchange
from server.request import Delta, Deltas
from server.serving.fan_in import merge_streams

pytestmark = pytest.mark.anyio


class Source:
    """Yields numbered deltas, and remembers how it ended."""

    def __init__(self, count: int, *, fails: bool = False, pause: float = 0.0) -> None:
        self.count, self.fails, self.pause = count, fails, pause
        self.closed = False

    async def deltas(self, index: int = 0) -> Deltas:
        try:
            for number in range(self.count):
                await asyncio.sleep(self.pause)
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
        rest = await anext(stream)
    assert len(first) + len(rest) == 6
    assert len(rest) > 1


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


class Client:
    """A client that stays until `leave`."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def test_wanted_work_is_left_alone() -> None:
    exchange = Exchange("id")
    async with cancel_on_disconnect(exchange, Client().receive, 10):
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert exchange.cancel_reason == "aborted"
    current = asyncio.current_task()
    assert current is not None
    assert current.cancelling() == 0


async def test_a_client_that_leaves_ends_the_work() -> None:
    client, exchange, source = Client(), Exchange("id"), Source(1000, pause=0.001)
    asyncio.get_running_loop().call_later(0.02, client.gone.set)
    with pytest.raises(ClientDisconnect):
        async with cancel_on_disconnect(exchange, client.receive, None):
            await gather(merge_streams([source.deltas()]), 1)
    assert source.closed
    assert exchange.cancel_reason == "disconnect"
    await asyncio.sleep(0.001)  # the cancellation was used up


async def test_work_ends_when_its_time_is_up() -> None:
    exchange, source = Exchange("id"), Source(1000, pause=0.001)
    with pytest.raises(TimeoutError):
        async with cancel_on_disconnect(exchange, Client().receive, 0.02):
            await gather(merge_streams([source.deltas()]), 1)
    assert source.closed
    assert exchange.cancel_reason == "timeout"


async def test_an_error_of_the_work_itself_comes_through() -> None:
    with pytest.raises(EngineError):
        async with cancel_on_disconnect(Exchange("id"), Client().receive, 10):
            await gather(merge_streams([Source(1, fails=True).deltas()]), 1)


async def test_a_cancellation_from_outside_stays_one() -> None:
    async def work() -> None:
        async with cancel_on_disconnect(Exchange("id"), Client().receive, 10):
            await asyncio.sleep(60)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
