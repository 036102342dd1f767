"""What waits for slow readers is counted as it comes and goes, and bounded for each and for all."""

from __future__ import annotations

import asyncio
import math
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.engines.embedded.scheduling.step import Sequence
from server.engines.shared import stream, unread
from server.engines.shared.stream import DeltaStream, StepEvent
from server.engines.shared.unread import Unread, size_of
from server.errors import UnreadAnswerError
from server.request import GenerationRequest, Sampling, TokenLogprob
from server.text.tokenizer import Tokenizer

TOKEN = StepEvent(7)
SCORED = StepEvent(7, TokenLogprob(7, -1.0, ((7, -1.0),) * 20))
SIZE = size_of(SCORED.logprob)


class NoText:
    """A tokenizer's part in a stream, without text."""

    def push(self, _token: int) -> tuple[str, None]:
        return "", None


@pytest.fixture(autouse=True)
def without_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(DeltaStream, "_text", NoText())


def stream_of(held: Unread[DeltaStream]) -> DeltaStream:
    request = GenerationRequest(request_id="r", prompt=(1,), sampling=Sampling(max_tokens=1))
    return DeltaStream(Sequence(request, 0.0), cast(Tokenizer, None), held)


def read(one: DeltaStream) -> int:
    """Tokens of the next delta, which waits already."""
    return len(asyncio.run(one.next()).token_ids)


def test_an_answer_that_nobody_reads_is_dropped_at_its_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "STREAM_BYTES", 10 * SIZE)
    held = Unread(DeltaStream.drop)
    slow, other = stream_of(held), stream_of(held)
    for _ in range(11):
        slow.feed(SCORED)
    assert held.held == 10 * SIZE, "the oldest apart"
    other.feed(SCORED)
    slow.feed(SCORED)
    slow.feed(SCORED)
    assert (held.held, held.dropped) == (0, 1)
    with pytest.raises(UnreadAnswerError):
        asyncio.run(slow.next())
    assert slow.done
    assert read(other) == 1


def test_of_all_the_answer_with_most_is_dropped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unread, "ALL_BYTES", 10 * SIZE)
    held = Unread(DeltaStream.drop)
    small, large = stream_of(held), stream_of(held)
    for count, one in ((4, small), (8, large)):
        for _ in range(count):
            one.feed(SCORED)
    small.feed(SCORED)
    assert (held.held, held.dropped) == (4 * SIZE, 1)
    assert read(small) == 5
    with pytest.raises(UnreadAnswerError):
        asyncio.run(large.next())


def test_what_waits_is_read_in_pieces() -> None:
    one = stream_of(Unread(DeltaStream.drop))
    piece = math.ceil(stream.PIECE_BYTES / SIZE)
    for _ in range(piece + 3):
        one.feed(SCORED)
    assert read(one) == piece
    assert read(one) == 3


STEPS = st.tuples(st.integers(0, 2), st.sampled_from(["token", "scored", "read", "leave"]))


@given(st.lists(STEPS, max_size=stream.PIECE_BYTES // SIZE))
def test_every_byte_is_counted_until_it_is_read_or_its_reader_leaves(steps: list[tuple[int, str]]) -> None:
    held = Unread(DeltaStream.drop)
    streams = [stream_of(held) for _ in range(3)]
    waits: list[list[StepEvent]] = [[], [], []]
    for which, step in steps:
        if step == "leave":
            streams[which].discard()
            waits[which] = []
        elif step != "read":
            event = TOKEN if step == "token" else SCORED
            streams[which].feed(event)
            waits[which].append(event)
        elif waits[which]:
            assert read(streams[which]) == len(waits[which])
            waits[which] = []
        assert held.held == sum(size_of(event.logprob) for events in waits for event in events[1:])
    assert held.dropped == 0
