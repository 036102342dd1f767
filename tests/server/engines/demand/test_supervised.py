"""An engine that dies or hangs under the supervisor: a real one, on a runner that fails on command."""

from __future__ import annotations

import asyncio
import threading
import time
import weakref
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.model.cache import BuiltGraph, prepare
from server.engines.supervised import SupervisedEngine
from server.errors import EngineDeadError
from server.metrics.engine_state import EngineState
from server.request import Delta
from tests.server.engines.asking import alone, ask, collect, tokens
from tests.server.engines.faulty import WAIT, Machine, raise_in_step
from tests.server.engines.making import BASE_DIGEST

pytestmark = pytest.mark.anyio


@pytest.fixture(scope="module")
def graph(tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> BuiltGraph:
    return prepare(tiny_base, tmp_path_factory.mktemp("graphs"), BASE_DIGEST)


@pytest.fixture
def machine(tiny_base: Path, graph: BuiltGraph, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr("server.engines.supervised.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("server.engines.supervised.FIRST_WAIT", 0.01)
    return Machine(tiny_base, graph)


@asynccontextmanager
async def supervised(
    machine: Machine, *, restarts: int, step_timeout: float | None = None
) -> AsyncGenerator[SupervisedEngine]:
    engine = SupervisedEngine(
        machine.open(), machine.open, machine, restarts=restarts, step_timeout=step_timeout
    )
    await engine.start()
    try:
        yield engine
    finally:
        machine.let_go.set()
        await engine.close()


async def becomes(engine: Engine, wanted: Callable[[EngineState], bool]) -> EngineState:
    end = time.monotonic() + WAIT
    while not wanted(state := engine.state()):
        assert time.monotonic() < end, state
        await asyncio.sleep(0.005)
    return state


async def read(engine: Engine, count: int) -> list[list[Delta] | BaseException]:
    """`count` long answers that run together, or what each ended with."""
    asked = [collect(engine, ask([3, 4, 5 + index], max_tokens=200)) for index in range(count)]
    return await asyncio.gather(*asked, return_exceptions=True)


async def test_a_step_that_raises_ends_the_streams_and_the_engine_comes_back(
    machine: Machine, voices: dict[str, Adapter]
) -> None:
    async with supervised(machine, restarts=2) as engine:
        for adapter in voices.values():
            await engine.load(adapter)
        one = next(iter(voices.values()))
        before = await tokens(engine, ask([3, 4, 5], alone(one)))
        machine.faults.append(raise_in_step)
        ends = await read(engine, 4)
        assert all(isinstance(end, EngineDeadError) for end in ends)
        state = await becomes(engine, lambda state: state.ready)
        assert set(state.resident) == {adapter.digest for adapter in voices.values()}
        assert await tokens(engine, ask([3, 4, 5], alone(one))) == before
        assert machine.failures == {"died": 1}
        assert machine.restarts == {"ok": 1}


async def test_a_step_that_never_ends_is_given_up(machine: Machine) -> None:
    async with supervised(machine, restarts=1, step_timeout=1.0) as engine:
        before = await tokens(engine, ask([3, 4, 5]))
        machine.faults.append(machine.hang)
        ends = await read(engine, 4)
        assert all(isinstance(end, EngineDeadError) for end in ends)
        await becomes(engine, lambda state: state.ready)
        assert await tokens(engine, ask([3, 4, 5])) == before
        assert machine.failures == {"stalled": 1}


async def test_an_engine_that_was_given_up_frees_its_memory_when_its_step_returns(machine: Machine) -> None:
    async with supervised(machine, restarts=1, step_timeout=0.5) as engine:
        machine.faults.append(machine.hang)
        await read(engine, 1)
        await becomes(engine, lambda state: state.ready)
        stuck, now = machine.runners
        held = [weakref.ref(getattr(stuck, name)) for name in ("_session", "_memory", "_store")]
        assert all(reference() is not None for reference in held)
        machine.let_go.set()
        await becomes(engine, lambda _: all(reference() is None for reference in held))
        assert len(await tokens(engine, ask([3, 4, 5]))) == 12
        assert hasattr(now, "_session")


async def test_without_a_restart_the_engine_stays_dead(machine: Machine) -> None:
    async with supervised(machine, restarts=0, step_timeout=1.0) as engine:
        machine.faults.append(machine.hang)
        ends = await read(engine, 2)
        assert all(isinstance(end, EngineDeadError) for end in ends)
        state = engine.state()
        assert (state.alive, state.restarting, state.ready) == (False, False, False)
        with pytest.raises(EngineDeadError):
            await tokens(engine, ask([3]))
        assert machine.opened == 1


async def test_restarts_are_used_up_and_failed_ones_count(machine: Machine) -> None:
    async with supervised(machine, restarts=3) as engine:
        machine.refuses_to_open = 1
        machine.faults.append(raise_in_step)
        await read(engine, 1)
        await becomes(engine, lambda state: state.ready)
        assert machine.restarts == {"failed": 1, "ok": 1}
        for _ in range(2):
            machine.faults.append(raise_in_step)
            await read(engine, 1)
            await becomes(engine, lambda state: state.ready or not state.restarting)
        await becomes(engine, lambda _: machine.failures["died"] == 3)
        assert not engine.state().alive
        assert machine.restarts == {"failed": 1, "ok": 2}
        assert machine.failures == {"died": 3}


async def test_while_it_starts_again_it_says_so_and_refuses(machine: Machine) -> None:
    async with AsyncExitStack() as stack:
        engine = await stack.enter_async_context(supervised(machine, restarts=1))
        opened = threading.Event()
        plain = machine.open

        def slow() -> EmbeddedEngine:
            opened.wait(WAIT)
            return plain()

        engine._reopen = slow  # pyright: ignore[reportPrivateUsage] # a start that lasts as long as is wanted
        stack.callback(opened.set)
        machine.faults.append(raise_in_step)
        await read(engine, 1)
        state = await becomes(engine, lambda state: state.restarting)
        assert not state.ready
        with pytest.raises(EngineDeadError):
            await tokens(engine, ask([3]))
        opened.set()
        await becomes(engine, lambda state: state.ready)


async def test_closing_ends_a_restart_under_way(machine: Machine) -> None:
    async with supervised(machine, restarts=5) as engine:
        machine.refuses_to_open = 5
        machine.faults.append(raise_in_step)
        await read(engine, 1)
        await engine.close()
        assert not engine.state().restarting


@pytest.mark.parametrize(
    ("progress", "slowest", "ready"),
    [(9.9, 0.0, True), (10.0, 0.0, False), (10.0, 2.4, False), (19.0, 5.0, True), (20.0, 5.0, False)],
)
def test_readiness_falls_after_ten_seconds_unless_steps_are_that_slow(
    progress: float, slowest: float, ready: bool
) -> None:
    assert EngineState(alive=True, progress=progress, slowest_step=slowest).ready is ready


def test_a_dead_engine_is_not_ready() -> None:
    assert not EngineState(alive=False, progress=0.0).ready
