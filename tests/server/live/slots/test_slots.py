"""Who gets a slot, who makes way, and who waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest

from server.api.rendering.error_replies import reply_for
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    EngineError,
    UnsupportedRequestError,
)
from server.live.slots import residency as module
from tests.server.live.slots.slot_engine import Asking, House, ran, turns

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("short_looks")]


async def test_the_least_recently_used_makes_way() -> None:
    house = House(3, "abcde")
    for name in "abcab":
        await ran(house, name)
    await ran(house, "d")
    assert house.here == {"a", "b", "d"}
    await ran(house, "e")
    assert house.here == {"b", "d", "e"}
    assert house.engine.dropped == ["c", "a"]
    assert house.value("oneseek_adapter_evictions_total", adapter="c") == 1
    assert house.value("oneseek_adapter_loads_total", adapter="d", outcome="ok") == 1
    assert house.value("oneseek_adapter_wait_seconds_count", outcome="ok") == 5


async def test_what_a_request_uses_stays_and_the_others_make_way() -> None:
    house = House(2, "abcd")
    asking = Asking(house, "a")
    await turns()
    for name in "bcd":
        await ran(house, name)
    assert asking.running
    assert house.here == {"a", "d"}
    asking.finish()
    await asking.task


async def test_a_lease_holds_what_the_engine_does_not_use_yet() -> None:
    house = House(1, "ab")
    lease = await house.residency.acquire(house.some("a"))
    lease.expect(2)
    waiting = Asking(house, "b")
    lease.begun()
    await asyncio.sleep(0.02)
    assert house.here == {"a"}
    lease.begun()
    await asyncio.sleep(0.02)
    assert waiting.running
    waiting.finish()
    await waiting.task


async def test_nothing_that_is_resident_stands_in_for_a_damaged_version() -> None:
    house = House(2, "ab")
    await ran(house, "a")
    (resident,) = house.some("a")
    damaged = replace(resident, alias="other", problem="its digest is not the recorded one")
    for use in (house.residency.ensure(damaged), house.residency.acquire([damaged])):
        with pytest.raises(AdapterUnavailableError):
            await use


async def test_requests_for_one_cold_adapter_are_one_load() -> None:
    house = House(2, "ab")
    house.engine.gate.clear()
    asking = [Asking(house, "a") for _ in range(20)]
    await turns()
    house.engine.gate.set()
    await turns()
    assert all(one.running for one in asking)
    assert house.engine.loads == ["a"]
    for one in asking:
        one.finish()
    await asyncio.gather(*(one.task for one in asking))


async def test_a_cold_load_holds_up_no_hot_adapter() -> None:
    house = House(2, "ab")
    await ran(house, "a")
    house.engine.gate.clear()
    cold = Asking(house, "b")
    await turns()
    await ran(house, "a")
    assert not cold.running
    house.engine.gate.set()
    cold.finish()
    await cold.task


async def test_one_adapter_is_loaded_at_a_time() -> None:
    house = House(4, "abcd")
    asking = [Asking(house, name) for name in "abcd"]
    await turns(60)
    assert house.engine.most_loading == 1
    assert house.engine.loads == ["a", "b", "c", "d"]
    for one in asking:
        one.finish()
    await asyncio.gather(*(one.task for one in asking))


async def test_those_who_wait_are_served_in_their_order(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CLOSE_AFTER", 60.0)
    house = House(1, "abcd")
    first = Asking(house, "a")
    await turns()
    line = [Asking(house, name) for name in "dcb"]
    order: list[str] = []
    first.finish()
    for _ in range(3):
        await asyncio.sleep(0.02)
        (running,) = [one for one in line if one.running]
        order.append(running.names)
        running.finish()
    await asyncio.gather(*(one.task for one in line))
    assert order == ["d", "c", "b"]


async def test_hot_traffic_keeps_no_cold_adapter_from_a_slot() -> None:
    house, stop = House(2, "abc"), False

    async def hot(name: str) -> None:
        """Requests that overlap, so that the adapter is never idle."""
        before: Asking | None = None
        while not stop:
            now = Asking(house, name)
            await asyncio.sleep(0.004)
            if before is not None:
                before.finish()
                await before.task
            before = now
        if before is not None:
            before.finish()
            await before.task

    traffic = [asyncio.create_task(hot(name)) for name in "ab"]
    await asyncio.sleep(0.02)
    assert house.here == {"a", "b"}
    await asyncio.wait_for(ran(house, "c"), 2)
    stop = True
    await asyncio.wait_for(asyncio.gather(*traffic), 5)


async def test_a_stream_of_cold_requests_keeps_no_hot_one_waiting() -> None:
    house = House(3, "abcdefghij")
    await ran(house, "a")
    stop = False

    async def cold() -> None:
        while not stop:
            for name in "bcdefghij":
                await ran(house, name)

    stream = asyncio.create_task(cold())
    hot = Asking(house, "a")
    await turns()
    for _ in range(50):  # it is always in use by one, so that all others are there at once
        next_one = Asking(house, "a")
        await turns(3)
        assert next_one.running
        hot.finish()
        await hot.task
        hot = next_one
    stop = True
    hot.finish()
    await asyncio.gather(hot.task, stream)
    assert house.engine.loads.count("a") == 1


async def test_where_no_slot_comes_free_it_is_a_503_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.1)
    house = House(1, "abc")
    asking = Asking(house, "a")
    await turns()
    with pytest.raises(AdaptersBusyError) as caught:
        await house.residency.acquire(house.some("b"))
    reply = reply_for(caught.value)
    assert (reply.status, reply.code) == (503, "adapter_slots_full")
    assert int(reply.headers["Retry-After"]) >= 1
    assert house.value("oneseek_adapter_wait_seconds_count", outcome="timeout") == 1
    await ran(house, "a")  # what was closed to new requests is open again
    asking.finish()
    await asking.task
    await ran(house, "b")


async def test_a_load_that_takes_too_long_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "PATIENCE", 0.05)
    house = House(1, "a")
    house.engine.gate.clear()
    with pytest.raises(AdapterNotLoadedError) as caught:
        await house.residency.acquire(house.some("a"))
    assert reply_for(caught.value).code == "adapter_not_loaded"
    house.engine.gate.set()
    await turns()
    assert house.here == {"a"}


async def test_a_blend_has_all_of_its_adapters_at_once() -> None:
    house = House(3, "abcdef")
    one, other = Asking(house, "abc"), Asking(house, "def")
    third = Asking(house, "acf")
    for asking in (one, other, third):
        await asyncio.sleep(0.02)
        assert asking.running
        assert house.here == set(asking.names)
        asking.finish()
        await asking.task
    with pytest.raises(UnsupportedRequestError):
        await house.residency.acquire(house.some("abcd"))
    house = House(3, "abcd", pinned=("a",))
    await house.residency.load_first()
    with pytest.raises(UnsupportedRequestError):
        await house.residency.acquire(house.some("bcd"))
    await ran(house, "acd")


async def test_a_refused_adapter_is_refused_for_all_who_wait_and_holds_up_no_other() -> None:
    house = House(2, "ab")
    house.engine.gate.clear()
    house.engine.fault = EngineError("broken")
    waiting = [asyncio.create_task(house.residency.ensure(house.adapters["a"])) for _ in range(3)]
    await turns()
    house.engine.gate.set()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert all(isinstance(outcome, AdapterRefusedError) for outcome in outcomes)
    house.engine.fault = None
    await ran(house, "b")
    assert house.engine.loads == ["a", "b"]


async def test_a_client_that_leaves_the_line_holds_nothing() -> None:
    house = House(2, "abc")
    asking = Asking(house, "a")
    await turns()
    gone = Asking(house, "bc")  # it has b, and waits for the slot of a
    await turns()
    gone.task.cancel()
    await asyncio.gather(gone.task, return_exceptions=True)
    await ran(house, "c")
    assert asking.running
    assert house.here == {"a", "c"}
    asking.finish()
    await asking.task
