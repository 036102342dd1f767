"""Bases that come at their first request and go when they are idle, in every order of events."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, TypeVar

import pytest
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from server.engines.loaded_bases import LoadedBases, Why
from server.engines.ondemand import FIRST_RETRY, DemandLimits, OnDemandEngine
from server.errors import (
    BaseNotLoadedError,
    BaseUnavailableError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
)
from server.metrics.engine_state import EngineInfo, EngineState
from server.request import Delta, GenerationRequest, Sampling, Share

INFO = EngineInfo(
    name="embedded", base_digest="sha256:0", context=8, vocabulary=8, blends=True, max_adapters=2
)
REQUEST = GenerationRequest(request_id="r", prompt=(1,), sampling=Sampling(max_tokens=1), adapter_mix=())
NAMES = ("a", "b", "c")
T = TypeVar("T")


class Held:
    """A place that is held."""

    name, open = "", True

    def begin(self) -> None:
        pass

    def close(self) -> None:
        self.open = False


class Places:
    """Enough places for everybody."""

    full = False

    def check(self, share: Share, count: int = 1) -> None:
        pass

    def reserve(self, share: Share, count: int = 1) -> Held:
        return Held()


class Residents:
    open = frozenset[str]()


class LightEngine:
    """An engine without a model, in a world that counts engines and can make them fail."""

    info, residents, places = INFO, Residents(), Places()

    def __init__(self, world: World, name: str) -> None:
        self.world, self.name = world, name
        self.alive = True
        if name in world.failing:
            raise EngineError("it is broken")
        self.started = False

    async def start(self) -> None:
        self.world.running[self.name] = self.world.running.get(self.name, 0) + 1
        self.started = True
        await asyncio.sleep(0)

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        for _ in range(3):
            await asyncio.sleep(0)
            assert self.started, "the base was unloaded under a request"
            yield Delta("x")

    def state(self) -> EngineState:
        return EngineState(alive=self.alive, progress=0.0)

    async def close(self) -> None:
        if self.started:
            self.started = False
            self.world.running[self.name] -= 1
        await asyncio.sleep(0)


class World:
    """The bases of a server, a clock, and what was counted."""

    def __init__(
        self, most: int | None = None, *, idle: float = 1000.0, wait: float = 50.0, waiting: int = 9
    ):
        self.now = 0.0
        self.failing: set[str] = set()
        self.running: dict[str, int] = {}
        self.loads: list[str] = []
        self.unloads: list[str] = []
        self.gate = threading.Event()
        self.gate.set()
        self.made: dict[str, LightEngine] = {}
        loaded = LoadedBases(most)
        limits = DemandLimits(idle_seconds=idle, wait_seconds=wait, most_waiting=waiting)
        self.bases = {
            name: OnDemandEngine(name, INFO, self._opener(name), loaded, self, limits, lambda: self.now)
            for name in NAMES
        }

    def _opener(self, name: str) -> Any:
        def reopen() -> LightEngine:
            assert self.gate.wait(10)
            self.made[name] = LightEngine(self, name)
            return self.made[name]

        return reopen

    def base_loaded(self, outcome: str, seconds: float) -> None:
        self.loads.append(outcome)

    def base_unloaded(self, reason: Why) -> None:
        self.unloads.append(reason)


@pytest.mark.anyio
async def test_first_requests_gather_and_one_load_serves_them() -> None:
    world = World()
    await asyncio.gather(*(world.bases["a"].ready() for _ in range(5)))
    assert (world.loads, world.running) == (["ok"], {"a": 1})
    await world.bases["a"].close()
    assert world.running == {"a": 0}


@pytest.mark.anyio
async def test_a_request_waits_up_to_a_limit_and_the_load_goes_on() -> None:
    world = World(wait=0.05)
    world.gate.clear()
    base = world.bases["a"]
    waiting = asyncio.create_task(base.ready())
    await asyncio.sleep(0.1)
    world.now = 1.0
    with pytest.raises(BaseNotLoadedError) as told:
        await waiting
    assert told.value.retry_after > 0
    assert base.phase == "loading"
    world.gate.set()
    await base.ready()
    assert world.loads == ["ok"]
    await base.close()


@pytest.mark.anyio
async def test_no_more_wait_than_there_are_places() -> None:
    world = World(waiting=2)
    world.gate.clear()
    waiting = [asyncio.create_task(world.bases["a"].ready()) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(EngineBusyError):
        await world.bases["a"].ready()
    world.gate.set()
    await asyncio.gather(*waiting)
    await world.bases["a"].close()


@pytest.mark.anyio
async def test_a_failed_load_is_told_by_name_and_tried_again_later() -> None:
    world = World()
    world.failing.add("a")
    base = world.bases["a"]
    for _ in range(2):
        with pytest.raises(BaseUnavailableError, match="it is broken"):
            await base.ready()
    assert (world.loads, base.phase, base.problem) == (["failed"], "failed", "it is broken")
    assert base.state().ready
    world.failing.clear()
    world.now += FIRST_RETRY
    await base.ready()
    assert (world.loads, base.phase, base.problem) == (["failed", "ok"], "loaded", None)
    await base.close()


@pytest.mark.anyio
async def test_what_is_used_stays_and_what_is_idle_goes() -> None:
    world = World(idle=0.01)
    base = world.bases["a"]
    await base.start()
    await base.ready()
    held = base.places.reserve(Share("", ""))
    world.now = 100.0
    await asyncio.sleep(0.15)
    assert base.phase == "loaded"
    held.close()
    world.now = 200.0
    await asyncio.sleep(0.15)
    assert (base.phase, world.unloads, world.running) == ("unloaded", ["idle"], {"a": 0})
    await base.close()


@pytest.mark.anyio
async def test_an_engine_that_dies_is_loaded_again_and_ends_no_server() -> None:
    world = World(idle=0.1)
    base = world.bases["a"]
    await base.start()
    await base.ready()
    world.made["a"].alive = False
    assert base.state().alive
    await asyncio.sleep(0.15)
    assert (base.phase, world.unloads) == ("failed", ["died"])
    assert base.state().alive
    world.now += FIRST_RETRY
    await base.ready()
    assert base.phase == "loaded"
    await base.close()


@pytest.mark.anyio
async def test_the_one_used_the_longest_ago_makes_room() -> None:
    world = World(2)
    for name in ("a", "b", "a"):
        world.now += 1
        await world.bases[name].ready()
    await world.bases["c"].ready()
    assert [world.bases[name].phase for name in NAMES] == ["loaded", "unloaded", "loaded"]
    assert world.unloads == ["room"]
    for base in world.bases.values():
        await base.close()


@pytest.mark.anyio
async def test_a_stream_keeps_its_base_and_nothing_makes_room_under_it() -> None:
    world = World(1, wait=0.05)
    await world.bases["a"].ready()
    stream = world.bases["a"].generate(REQUEST)
    await anext(stream)
    waiting = asyncio.create_task(world.bases["b"].ready())
    await asyncio.sleep(0.1)
    world.now = 1.0
    with pytest.raises(BaseNotLoadedError):
        await waiting
    assert world.bases["a"].phase == "loaded"
    await stream.aclose()
    await world.bases["b"].ready()
    assert [world.bases[name].phase for name in NAMES] == ["unloaded", "loaded", "unloaded"]
    for base in world.bases.values():
        await base.close()


@pytest.mark.anyio
@pytest.mark.parametrize("phase", ["unloaded", "loading", "loaded", "unloading", "failed"])
async def test_it_closes_in_every_phase(phase: str) -> None:
    world = World()
    base = world.bases["a"]
    await base.start()
    asking: asyncio.Task[None] | None = None
    if phase == "failed":
        world.failing.add("a")
    if phase == "loading":
        world.gate.clear()
        asking = asyncio.create_task(base.ready())
        await asyncio.sleep(0.01)
    elif phase != "unloaded":
        await asyncio.gather(base.ready(), return_exceptions=True)
    if phase == "unloading":
        base.unload_now("idle")
    assert base.phase == phase
    await base.close()
    await base.close()
    world.gate.set()
    assert not any(world.running.values())
    if asking is not None:
        with pytest.raises(EngineDeadError):
            await asking
    with pytest.raises(EngineDeadError):
        await base.ready()


class LoadingStates(RuleBasedStateMachine):
    """Requests, failures, idle times and ends in any order."""

    MOST = 2

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.world = self.run(self.make())
        self.asking: list[tuple[str, asyncio.Task[None]]] = []
        self.held: list[tuple[str, Any]] = []
        self.closed = False

    async def make(self) -> World:
        return World(self.MOST)

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    async def ask(self, name: str) -> None:
        base = self.world.bases[name]
        try:
            await base.ready()
            self.held.append((name, base.places.reserve(Share("", ""))))
        except EngineError:
            pass

    @precondition(lambda self: not self.closed)
    @rule(name=st.sampled_from(NAMES))
    def request(self, name: str) -> None:
        self.asking.append((name, self.loop.create_task(self.ask(name))))
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def one_request_ends(self, name: str) -> None:
        for place, (of, held) in enumerate(self.held):
            if of == name:
                held.close()
                del self.held[place]
                break
        self.settle()

    @rule(name=st.sampled_from(NAMES))
    def a_client_leaves(self, name: str) -> None:
        for of, task in self.asking:
            if of == name and not task.done():
                task.cancel()
                break
        self.settle()

    @rule(name=st.sampled_from(NAMES), broken=st.booleans())
    def a_base_breaks_or_is_repaired(self, name: str, broken: bool) -> None:
        (self.world.failing.add if broken else self.world.failing.discard)(name)

    @rule(seconds=st.sampled_from([1.0, 10.0, 400.0]))
    def time_passes(self, seconds: float) -> None:
        self.world.now += seconds

    @rule(name=st.sampled_from(NAMES))
    def it_has_been_idle(self, name: str) -> None:
        base = self.world.bases[name]
        if base.idle:
            self.run(self.unload(base))

    async def unload(self, base: OnDemandEngine) -> None:
        await asyncio.wait([base.unload_now("idle")])

    @rule()
    def settle(self) -> None:
        self.run(asyncio.sleep(0.001))

    @precondition(lambda self: not self.closed)
    @rule()
    def the_server_ends(self) -> None:
        self.closed = True
        self.run(self.end())

    async def end(self) -> None:
        for base in self.world.bases.values():
            await base.close()
        self.held.clear()

    @invariant()
    def no_more_are_in_memory_than_may_be(self) -> None:
        assert sum(self.world.running.values()) <= self.MOST
        assert all(count in (0, 1) for count in self.world.running.values())

    @invariant()
    def what_is_referenced_is_loaded(self) -> None:
        for name, held in self.held:
            if held.open:
                assert self.world.bases[name].phase == "loaded"
                assert self.world.running[name] == 1

    @invariant()
    def after_the_end_nothing_is_left(self) -> None:
        if self.closed:
            assert not any(self.world.running.values())

    def teardown(self) -> None:
        for _, task in self.asking:
            task.cancel()
        self.run(self.end())
        self.run(asyncio.sleep(0.001))
        self.run(self.loop.shutdown_default_executor())
        self.loop.close()


LoadingStates.TestCase.settings = hypothesis_settings(max_examples=25, stateful_step_count=25, deadline=None)
TestLoadingStates = LoadingStates.TestCase
