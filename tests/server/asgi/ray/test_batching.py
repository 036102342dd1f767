"""Deltas that travel together."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator

import pytest

from server.asgi.ray.batching import batch_deltas
from server.request import Delta

pytestmark = pytest.mark.anyio


async def source(count: int, seconds: float, closed: list[int]) -> AsyncGenerator[Delta, None]:
    try:
        for number in range(count):
            await asyncio.sleep(seconds)
            yield Delta(str(number), (number,), finish_reason="stop" if number == count - 1 else None)
    finally:
        closed.append(count)


async def test_the_first_comes_at_once_and_the_rest_together() -> None:
    found = [batch async for batch in batch_deltas(source(20, 0.002, []), 60)]
    assert [delta.token_ids[0] for batch in found for delta in batch] == [*range(20)]
    assert (len(found), len(found[0])) == (2, 1)


async def test_slow_tokens_are_not_held_back() -> None:
    found = [batch async for batch in batch_deltas(source(3, 0.05, []), 0.01)]
    assert [len(batch) for batch in found] == [1, 1, 1]


async def test_the_end_is_not_waited_for() -> None:
    began = time.monotonic()
    assert len([one async for one in batch_deltas(source(3, 0.0, []), 60)]) >= 1
    assert time.monotonic() - began < 30


async def test_an_error_comes_after_what_came_before_it() -> None:
    async def failing() -> AsyncGenerator[Delta, None]:
        yield Delta("a", (1,))
        raise RuntimeError("broken")

    batches = batch_deltas(failing(), 0.01)
    assert [delta.text for delta in await anext(batches)] == ["a"]
    with pytest.raises(RuntimeError, match="broken"):
        await anext(batches)


async def test_closing_closes_the_source() -> None:
    closed: list[int] = []
    batches = batch_deltas(source(1000, 0.001, closed), 0.01)
    await anext(batches)
    await batches.aclose()
    assert closed == [1000]
