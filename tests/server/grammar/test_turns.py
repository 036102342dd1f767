"""Turns go round, and none is lost by whoever leaves."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.grammar.turns import FairTurns

pytestmark = pytest.mark.anyio


async def test_each_asker_has_a_turn_before_any_has_two() -> None:
    turns, order = FairTurns(), list[str]()

    async def work(asker: str) -> None:
        await turns.acquire(asker)
        order.append(asker)
        await asyncio.sleep(0)
        turns.release()

    tasks = [asyncio.create_task(work(asker)) for asker in "aaaaabbc"]
    await asyncio.gather(*tasks)
    assert order[:6] == list("aabcab")


@given(st.lists(st.tuples(st.sampled_from("abc"), st.booleans()), max_size=20))
def test_no_turn_is_lost(asked: list[tuple[str, bool]]) -> None:
    """Any of those who wait may leave at any time."""

    async def main() -> int:
        turns, done = FairTurns(), list[str]()

        async def work(asker: str) -> None:
            await turns.acquire(asker)
            try:
                await asyncio.sleep(0)
                done.append(asker)
            finally:
                turns.release()

        tasks = [asyncio.create_task(work(asker)) for asker, _ in asked]
        await asyncio.sleep(0)
        for task, (_, leaves) in zip(tasks, asked, strict=True):
            if leaves and turns.all_waiting:
                task.cancel()
        await asyncio.wait_for(asyncio.gather(*tasks, return_exceptions=True), 5)
        held = [task for task in tasks if task.cancelled()]
        assert len(done) + len(held) == len(asked)
        return turns.all_waiting

    assert asyncio.run(main()) == 0
