"""Requests that arrive together begin in turns of the event loop of their own."""

from __future__ import annotations

import asyncio

import pytest
from starlette.types import Message, Receive, Scope, Send

from server.asgi.turns import Turns
from server.exchange import EXCHANGE, Exchange

pytestmark = pytest.mark.anyio


class Recorder:
    """An application that notes in which turn of the event loop each request began."""

    def __init__(self) -> None:
        self.turn = 0
        self.began: list[tuple[int, int]] = []
        """(request, turn)"""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.began.append((scope["number"], self.turn))

    async def count(self) -> None:
        """Count turns until cancelled."""
        while True:
            self.turn += 1
            await asyncio.sleep(0)


async def receive() -> Message:
    return {"type": "http.disconnect"}


async def send(message: Message) -> None:
    raise AssertionError(message)


@pytest.fixture
async def app() -> Recorder:
    return Recorder()


def scope(number: int, tenant: str = "", address: str = "127.0.0.1") -> Scope:
    exchange = Exchange(str(number), address=address, tenant=tenant)
    return {"type": "http", "number": number, EXCHANGE: exchange}


async def begin(turns: Turns, numbers: range, **asker: str) -> list[asyncio.Task[None]]:
    return [asyncio.create_task(turns(scope(number, **asker), receive, send)) for number in numbers]


async def test_each_begins_in_a_turn_of_its_own_and_in_order(app: Recorder) -> None:
    turns, counter = Turns(app), asyncio.create_task(app.count())
    await asyncio.gather(*await begin(turns, range(20)))
    assert [number for number, _ in app.began] == list(range(20))
    assert len({turn for _, turn in app.began}) == 20
    assert app.turn < 40
    counter.cancel()


async def test_one_alone_begins_at_once(app: Recorder) -> None:
    turns = Turns(app)
    for number in range(3):
        (task,) = await begin(turns, range(number, number + 1))
        await asyncio.sleep(0)
        assert task.done()
        await asyncio.sleep(0)


async def test_one_that_is_given_up_holds_up_nobody(app: Recorder) -> None:
    turns = Turns(app)
    tasks = await begin(turns, range(5))
    await asyncio.sleep(0)
    for task in tasks[1:4]:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    assert [number for number, _ in app.began] == [0, 4]
    (again,) = await begin(turns, range(9, 10))
    await again


async def test_one_request_waits_for_one_of_each_other_asker(app: Recorder) -> None:
    """A hundred of one key and fifty of one address go first only once each."""
    turns = Turns(app)
    crowds = [*await begin(turns, range(100), tenant="crowd"), *await begin(turns, range(100, 150))]
    alone = await begin(turns, range(900, 901), tenant="alone")
    other = await begin(turns, range(901, 902), address="10.0.0.1")
    await asyncio.gather(*crowds, *alone, *other)
    order = [number for number, _ in app.began]
    assert order[0] == 0
    assert set(order[1:5]) == {1, 100, 900, 901}
    assert [n for n in order if n < 100] == list(range(100)), "each asker's own in order"
