"""Sizes are rounded up to few, and never to much more than was asked for."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from server.engines.embedded.runners.device.buckets import (
    SMALLEST_CHUNK,
    SMALLEST_MEMORY,
    SMALLEST_RANK,
    chunk_for,
    chunks,
    memories,
    memory_for,
    rank_for,
    seats_for,
)


def test_sizes_of_a_usual_model() -> None:
    assert memories(4096) == (128, 256, 512, 1024, 2048, 4112)
    assert memories(100) == (112,)
    assert chunks(512) == (16, 64, 256, 512)
    assert chunks(8) == (8,)


@given(context=st.integers(1, 40_000), data=st.data())
def test_a_row_always_has_a_position_to_spare(context: int, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(1, context))
    size = memory_for(memories(context), tokens)
    assert tokens < size <= max(2 * SMALLEST_MEMORY, 3 * tokens + 16)


@given(longest=st.integers(1, 4096), data=st.data())
def test_a_run_holds_the_tokens_and_at_most_four_times_as_many(longest: int, data: st.DataObject) -> None:
    tokens = data.draw(st.integers(1, longest))
    size = chunk_for(chunks(longest), tokens)
    assert tokens <= size <= max(SMALLEST_CHUNK, 4 * tokens)
    assert size <= longest


@given(rows=st.integers(1, 300), most=st.integers(1, 300))
def test_seats_are_a_power_of_two_or_all(rows: int, most: int) -> None:
    rows = min(rows, most)
    seats = seats_for(rows, most)
    assert rows <= seats < 2 * rows or (rows, seats) == (1, 1)
    assert seats == most or seats.bit_count() == 1


@given(columns=st.integers(0, 5000))
def test_rank_columns_are_never_none(columns: int) -> None:
    assert columns <= rank_for(columns) <= max(SMALLEST_RANK, 2 * columns)
