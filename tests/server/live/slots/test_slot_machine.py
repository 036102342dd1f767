"""Slots under requests, blends, loads and unloads in any order."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.server.live.slots.slot_engine import Asking, House, ran, turns

pytestmark = pytest.mark.usefixtures("short_looks")


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
