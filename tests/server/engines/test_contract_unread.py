"""Every engine alike: what clients do not read is bounded, and the others notice nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from server.engines.base import Engine
from server.engines.shared import unread
from server.engines.shared.places import Places
from server.errors import UnreadAnswerError
from server.request import Delta
from tests.server.engines.asking import ask, settles, tokens

pytestmark = pytest.mark.anyio


async def error_of_next(deltas: AsyncGenerator[Delta, None]) -> UnreadAnswerError | None:
    try:
        await anext(deltas)
    except UnreadAnswerError as error:
        return error
    return None


async def test_an_answer_that_piles_up_unread_is_ended(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "STREAM_BYTES", 30 * unread.size_of(None))
    before = engine.state().unread
    async with aclosing(engine.generate(ask([1, 2], max_tokens=200))) as deltas:
        ended = await error_of_next(deltas)  # at once if this loop is slow
        while engine.state().unread == before:
            await asyncio.sleep(0)
        places = engine.places
        assert isinstance(places, Places)
        assert not places.live, "its place is free before anybody reads, and before it would have ended"
        assert len(await tokens(engine, ask([1, 3], max_tokens=20))) == 20
        assert ended or await error_of_next(deltas)
    assert engine.state().unread == before + 1


async def test_answers_left_unread_together_are_bounded_together(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(unread, "ALL_BYTES", 100 * unread.size_of(None))
    before = engine.state().unread
    streams = [engine.generate(ask([1, 2 + number], max_tokens=60)) for number in range(4)]
    try:
        await asyncio.gather(*map(anext, streams), return_exceptions=True)
        assert await settles(engine, 30)
        assert 2 <= engine.state().unread - before <= 4
    finally:
        for stream in streams:
            await stream.aclose()
    dropped = engine.state().unread
    left = engine.generate(ask([1, 8], max_tokens=60))
    async with aclosing(left):
        await anext(left)
        assert await settles(engine, 30)
    lone = engine.generate(ask([1, 9], max_tokens=60))
    async with aclosing(lone) as deltas:
        read = len((await anext(deltas)).token_ids)
        assert await settles(engine, 30)
        read += len([token async for delta in deltas for token in delta.token_ids])
        assert read == 60, "nothing is left of those who are gone"
    assert engine.state().unread == dropped
