"""Work that nobody waits for any more, whenever that comes to be so."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import ClientDisconnect
from starlette.types import Message

from server.api.wire.disconnect import CancelScope
from server.errors import ApiError, EngineError
from server.exchange import Exchange

pytestmark = pytest.mark.anyio


class Client:
    """Sends a body in so many parts, and stays until `gone`."""

    def __init__(self, parts: int = 1, pause: float = 0.0) -> None:
        self.parts, self.pause = parts, pause
        self.gone = asyncio.Event()

    async def receive(self) -> Message:
        if self.parts and not self.gone.is_set():
            await asyncio.sleep(self.pause)
            self.parts -= 1
            return {"type": "http.request", "body": b"x", "more_body": self.parts > 0}
        await self.gone.wait()
        return {"type": "http.disconnect"}


async def read(scope: CancelScope) -> Sequence[Message]:
    messages = [await scope.receive()]
    while messages[-1].get("more_body", False):
        messages.append(await scope.receive())
    return messages


async def wait_in(scope: CancelScope) -> None:
    with scope:
        await read(scope)
        await asyncio.sleep(5)


def cancellations() -> int:
    current = asyncio.current_task()
    assert current is not None
    return current.cancelling()


async def test_wanted_work_is_left_alone() -> None:
    exchange, before = Exchange("id"), asyncio.all_tasks()
    with CancelScope(exchange, Client(parts=3).receive, 10) as scope:
        assert len(await read(scope)) == 3
        await asyncio.sleep(0.01)
    await asyncio.sleep(0)
    assert not exchange.given_up
    assert cancellations() == 0
    assert asyncio.all_tasks() == before


async def test_a_client_that_leaves_ends_the_work() -> None:
    client, exchange = Client(), Exchange("id")
    asyncio.get_running_loop().call_later(0.02, client.gone.set)
    with pytest.raises(ClientDisconnect):
        await wait_in(CancelScope(exchange, client.receive, None))
    assert exchange.cancel_reason == "disconnect"
    await asyncio.sleep(0.001)  # the cancellation was used up
    assert cancellations() == 0


async def test_a_client_that_leaves_before_its_body_ends_is_told_to_the_reader() -> None:
    client, exchange = Client(parts=2), Exchange("id")
    with CancelScope(exchange, client.receive, None) as scope:
        await scope.receive()
        client.gone.set()
        assert (await scope.receive())["type"] == "http.disconnect"
    assert exchange.cancel_reason == "disconnect"


async def test_work_ends_when_its_time_is_up_counted_from_the_requests_arrival() -> None:
    exchange = Exchange("id")
    exchange.started -= 60
    with pytest.raises(TimeoutError):
        await wait_in(CancelScope(exchange, Client().receive, 60.05))
    assert exchange.cancel_reason == "timeout"
    assert cancellations() == 0


@pytest.mark.parametrize("body", [True, False])
async def test_a_body_that_is_late_is_the_clients_own_delay(body: bool) -> None:
    client = Client(parts=2, pause=60)
    with pytest.raises(ApiError if body else TimeoutError) as caught:
        await wait_in(CancelScope(Exchange("id"), client.receive, 0.02, body=body))
    if isinstance(caught.value, ApiError):
        assert (caught.value.reply.status, caught.value.reply.code) == (408, "request_timeout")


async def test_a_stream_is_told_why_it_ends_and_may_say_so() -> None:
    with CancelScope(Exchange("id"), Client().receive, 0.02) as scope:
        await read(scope)
        with pytest.raises(TimeoutError), scope.unwind():
            await asyncio.sleep(60)
        await asyncio.sleep(0.03)  # its last word
    assert cancellations() == 0


async def test_a_whole_answer_is_not_broken_off() -> None:
    exchange = Exchange("id")
    with CancelScope(exchange, Client().receive, 0.02) as scope:
        await read(scope)
        scope.close()
        await asyncio.sleep(0.05)
    assert not exchange.given_up


async def test_an_error_of_the_work_itself_comes_through() -> None:
    with pytest.raises(EngineError), CancelScope(Exchange("id"), Client().receive, 10):
        raise EngineError("broken")


@pytest.mark.parametrize("limit", [10, 0.01])
async def test_a_cancellation_from_outside_stays_one(limit: float) -> None:
    async def work() -> None:
        with CancelScope(Exchange("id"), Client().receive, limit) as scope:
            await read(scope)
            try:
                await asyncio.sleep(60)
            finally:
                await asyncio.sleep(0)

    task = asyncio.create_task(work())
    await asyncio.sleep(0.005)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
