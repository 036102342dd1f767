"""Who gets a slot, who makes way, and who waits."""

from __future__ import annotations

import asyncio
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from adapters.registry.served import ServedAdapters
from adapters.registry.traffic import Shadow, TrafficSplit
from server.api.rendering.error_replies import reply_for
from server.config.values import SettingsError
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnavailableError,
    EngineError,
    UnsupportedRequestError,
)
from server.live.slots import residency as module
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
from server.metrics.metrics import Metrics
from tests.server.live.slots.slot_engine import BASE, Asking, House, SlotEngine, named, turns

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def short_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "LOOK_SECONDS", 0.001)
    monkeypatch.setattr(module, "CLOSE_AFTER", 0.03)


async def ran(house: House, names: str) -> None:
    """A request that comes and goes."""
    asking = Asking(house, names)
    asking.finish()
    await asyncio.wait_for(asking.task, 5)


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


async def test_pinned_ones_stay_and_preferred_ones_leave_last() -> None:
    house = House(4, "abcdefgh", pinned=("a",), configured=("b",))
    await house.residency.load_first()
    assert house.engine.loads == ["a", "b"]
    for name in "cdefgh" * 2:
        await ran(house, name)
    assert {"a", "b"} < house.here
    asking = [Asking(house, name) for name in "gh"]
    await turns()
    await ran(house, "c")  # two are in use, one is pinned: the preferred one makes way
    assert house.here == {"a", "g", "h", "c"}
    for one in asking:
        one.finish()
    await asyncio.gather(*(one.task for one in asking))


async def test_a_canary_and_a_shadow_stay_and_leave_a_slot_for_others() -> None:
    versions = [replace(named("a"), version=f"v{n}", digest=f"sha256:{n}") for n in (1, 2, 3)]
    served = ServedAdapters([*versions, *map(named, "bcd")], base_digest=BASE)
    served.activate("a", "v1")
    engine = SlotEngine(3)
    residency = Residency(engine, Metrics(), Priorities(served))
    served.divide("a", TrafficSplit("v1", (("v2", 10.0),), "then"), None)
    for adapter in (versions[1], *map(named, "bcd"), versions[0], *map(named, "bcd")):
        await residency.ensure(adapter)
    assert versions[1].digest in engine.residents.open
    residency.check_spare(versions[2])
    served.divide("a", TrafficSplit("v1", (("v2", 10.0),), "then"), Shadow("v3", 50.0, "then"))
    await residency.ensure(versions[2])
    for adapter in map(named, "bcd"):
        await residency.ensure(adapter)
    assert {versions[1].digest, versions[2].digest} < engine.residents.open
    with pytest.raises(AdaptersBusyError):
        residency.check_spare(named("b"))
    served.divide("a", None, None)
    for adapter in map(named, "bcd"):
        await residency.ensure(adapter)
    assert engine.residents.open == {named(name).digest for name in "bcd"}


async def test_everything_that_fits_is_loaded_at_the_start_else_what_goes_first() -> None:
    assert [one.alias for one in House(3, "abc", configured=("c",)).residency.priorities.first(3)] == [
        "c", "a", "b"
    ]  # fmt: skip
    assert [one.alias for one in House(2, "abc", configured=("c",)).residency.priorities.first(2)] == ["c"]


@pytest.mark.parametrize("pinned", [("nobody",), ("a", "b"), ("a", "b", "c")])
def test_pins_that_cannot_be_kept_stop_the_start(pinned: tuple[str, ...]) -> None:
    house = House(2, "abc", pinned=pinned)
    with pytest.raises(SettingsError) as caught:
        house.residency.priorities.check(2)
    assert caught.value.name == "pinned_adapters"


def test_all_adapters_may_be_pinned_if_there_are_slots_for_them() -> None:
    Priorities(House(2, "ab").served, ("a", "b@v1")).check(2)


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


class SlotMachine(RuleBasedStateMachine):
    """Requests, blends, slow loads, clients that leave and unloads from outside, in any order."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.asked: list[Asking] = []
        self.loop.run_until_complete(self._open())

    async def _open(self) -> None:
        self.house = House(3, "abcdefg", pinned=("a",), configured=("b",))
        await self.house.residency.load_first()

    def go(self) -> None:
        self.loop.run_until_complete(turns())

    @rule(names=st.sets(st.sampled_from("bcdefg"), min_size=1, max_size=2), pinned=st.booleans())
    def ask(self, names: set[str], pinned: bool) -> None:
        names = names | {"a"} if pinned else names

        async def begin() -> None:
            self.asked.append(Asking(self.house, "".join(sorted(names))))

        self.loop.run_until_complete(begin())
        self.go()

    @rule(which=st.integers(0, 20))
    def finish(self, which: int) -> None:
        running = [one for one in self.asked if one.running]
        if running:
            running[which % len(running)].finish()
        self.go()

    @rule(which=st.integers(0, 20))
    def leave(self, which: int) -> None:
        if self.asked:
            self.asked[which % len(self.asked)].task.cancel()
        self.go()

    @rule(opened=st.booleans())
    def gate(self, opened: bool) -> None:
        (self.house.engine.gate.set if opened else self.house.engine.gate.clear)()
        self.go()

    @rule(name=st.sampled_from("bcdefg"))
    def unload(self, name: str) -> None:
        async def begin() -> None:
            self.house.residency.unload_later(self.house.adapters[name])

        self.loop.run_until_complete(begin())
        self.go()

    @invariant()
    def slots_are_never_exceeded_and_nothing_leaves_under_a_request(self) -> None:
        engine = self.house.engine
        assert len(engine.residents.held) <= 3
        assert engine.most_loading <= 1
        assert "a" in self.house.here
        for one in self.asked:
            if one.running:
                held = {digest.removeprefix("sha256:") for digest in engine.residents.held}
                assert set(one.names) <= held

    def teardown(self) -> None:
        self.loop.run_until_complete(asyncio.wait_for(self._end(), 10))
        self.loop.close()

    async def _end(self) -> None:
        self.house.engine.gate.set()
        for one in self.asked:
            one.finish()
        ended = await asyncio.gather(*(one.task for one in self.asked), return_exceptions=True)
        assert all(end is None or isinstance(end, asyncio.CancelledError) for end in ended), ended
        await turns()
        await asyncio.wait_for(ran(self.house, "g"), 5)
        await turns()
        left = [
            task for task in asyncio.all_tasks() if task is not asyncio.current_task() and not task.done()
        ]
        assert len(left) <= 1, left  # the one that waits for this


TestSlotMachine = SlotMachine.TestCase
TestSlotMachine.settings = settings(max_examples=30, stateful_step_count=20, deadline=None)
