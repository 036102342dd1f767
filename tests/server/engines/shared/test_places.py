"""The places of an engine under whatever may happen to them."""

from __future__ import annotations

import itertools
from collections import Counter
from typing import cast

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.embedded.scheduling.step import Sequence
from server.engines.shared.places import LONGEST_RETRY, Places, Reservation
from server.engines.shared.stream import DeltaStream
from server.engines.shared.unread import Unread
from server.errors import EngineBusyError
from server.request import GenerationRequest, Sampling, Share
from server.text.tokenizer import Tokenizer

SHARES = [Share(tenant, adapter) for tenant in ("a", "b") for adapter in ("", "sv")]
SHADOW = Share("a", "sv", background=True)
Action = tuple[str, int, int]
"""What happens, to which of those that it may happen to, and how many."""

ACTIONS = st.lists(
    st.tuples(
        st.sampled_from(["reserve"] * 4 + ["claim"] * 4 + ["run", "end", "close", "embed", "shadow"]),
        st.integers(0, 100),
        st.sampled_from([1, 1, 1, 2, 5]),
    ),
    max_size=80,
)


def stream_of(number: int, share: Share) -> DeltaStream:
    request = GenerationRequest(
        request_id=f"s{number}", prompt=(1,), sampling=Sampling(max_tokens=1), share=share.adapter
    )
    return DeltaStream(Sequence(request, 0.0), cast(Tokenizer, None), Unread(DeltaStream.drop))


class Model:
    """The same places, counted anew each time."""

    def __init__(self, at_once: int, queue: int) -> None:
        self.capacity, self.queue = at_once + queue, queue
        self.withdrawn: list[DeltaStream] = []
        self.places = Places(at_once=at_once, queue=queue, withdraw=self._withdraw)
        self.open: list[Reservation[DeltaStream]] = []
        self.number = itertools.count()
        self.claimed: dict[str, int] = {}

    def _withdraw(self, stream: DeltaStream, error: EngineBusyError) -> None:
        assert stream.work.scheduled is None, "what has begun is never ended for another"
        assert error.gate == "queue"
        self.withdrawn.append(stream)
        reservation = next(r for r in self.open if stream in r.streams.values())
        assert reservation.share not in (None, SHADOW)
        self.places.leave(reservation, stream, None)

    def live(self, *shares: Share) -> int:
        return sum(r.held + len(r.streams) for r in self.open if r.share in shares)

    def waiting(self, share: Share) -> int:
        """In the order in which they came: one that runs tells that those before it do."""
        waits = 0
        streams = [s for r in self.open if r.share == share for s in r.streams.values()]
        streams.sort(key=lambda stream: self.claimed[stream.work.request.request_id])
        while streams and streams[0].work.scheduled is not None:
            streams.pop(0)
        waits += len(streams) + sum(r.held for r in self.open if r.share == share and not r.runs)
        return waits

    def part(self, share: Share) -> int:
        others = {r.share for r in self.open if r.share not in (share, SHADOW) and (r.held or r.streams)}
        if not others:
            return 0
        return max(1, self.queue // (1 + sum(self.waiting(other) > 0 for other in others)))

    def reserve(self, share: Share, count: int) -> None:
        live, part, waiting = self.live(*SHARES), self.part(share), self.waiting(share)
        before = {other: self.waiting(other) for other in SHARES}
        retry = 0.0
        try:
            made = self.places.reserve(share, count)
        except EngineBusyError as error:
            retry = error.retry_after
            made = None
        if made is None:
            assert live + count > self.capacity, "while there is room anyone may come"
            assert waiting + count > part, "a share has its part"
            assert 1 <= retry <= LONGEST_RETRY
            return
        assert live + count <= self.capacity or waiting + count <= part
        for other in SHARES:
            if self.waiting(other) < before[other]:
                assert before[other] > max(1, self.queue // len(SHARES)), "nobody loses what is its part"
        self.open.append(made)


@settings(max_examples=300, deadline=None)
@given(at_once=st.integers(1, 4), queue=st.integers(0, 9), actions=ACTIONS)
def test_shares_have_their_parts_and_nothing_is_left_behind(
    at_once: int, queue: int, actions: list[Action]
) -> None:
    model = Model(at_once, queue)
    running: list[tuple[Reservation[DeltaStream], DeltaStream]] = []
    for what, which, count in actions:
        apply(model, running, what, which, count)
        assert model.places.live == model.live(*SHARES)
        waiting = sum(map(model.waiting, SHARES))
        assert waiting <= at_once + queue + max(queue, len(SHARES))
        assert model.places.full == (model.places.live >= at_once + queue)
    for reservation in model.open:
        for stream in list(reservation.streams.values()):
            model.places.leave(reservation, stream, None)
        reservation.close()
        reservation.close()
    assert model.places.live == 0
    model.places.check(SHARES[0], at_once + queue)
    assert not vars(model.places)["_shares"], "no share is remembered"
    assert not vars(model.places)["_reservations"]


def apply(
    model: Model,
    running: list[tuple[Reservation[DeltaStream], DeltaStream]],
    what: str,
    which: int,
    count: int,
) -> None:
    held = [r for r in model.open if r.held and r.lost is None and not r.runs]
    streams = [(r, s) for r in model.open for s in r.streams.values()]
    match what:
        case "reserve":
            model.reserve(SHARES[which % len(SHARES)], count)
        case "shadow":
            live = model.live(*SHARES, SHADOW)
            try:
                model.open.append(model.places.reserve(SHADOW))
            except EngineBusyError:
                assert live >= model.capacity
        case "claim" if held:
            reservation = held[which % len(held)]
            number = next(model.number)
            stream = stream_of(number, reservation.share)
            model.claimed[f"s{number}"] = number
            assert model.places.find(reservation.name) is reservation
            model.places.claim(reservation, stream)
        case "run" if streams:
            # A share's own begin in their order, as the scheduler lets them.
            share = streams[which % len(streams)][0].share
            mine = [s for r, s in streams if r.share == share and s.work.scheduled is None]
            mine.sort(key=lambda stream: model.claimed[stream.work.request.request_id])
            for stream in mine[:count]:
                cast(Sequence, stream.work).scheduled = 1.0
        case "end" if streams:
            reservation, stream = streams[which % len(streams)]
            model.places.leave(reservation, stream, None if which % 2 else 0.5)
        case "embed" if held:
            held[which % len(held)].begin()
        case "close" if model.open:
            reservation = model.open[which % len(model.open)]
            reservation.close()
        case _:
            pass
    for reservation in [r for r in model.open if r.lost is not None]:
        assert not reservation.held
        assert not reservation.streams
        with pytest.raises(EngineBusyError):
            reservation.begin()


def test_a_queue_of_one_share_is_its_own_and_ends() -> None:
    model = Model(2, 3)
    for _ in range(5):
        model.reserve(SHARES[0], 1)
    with pytest.raises(EngineBusyError):
        model.places.reserve(SHARES[0])
    model.reserve(SHARES[1], 1)
    assert Counter(r.share for r in model.open if r.held) == {SHARES[0]: 4, SHARES[1]: 1}


def test_choices_come_all_or_not_at_all() -> None:
    model = Model(2, 6)
    model.reserve(SHARES[0], 8)
    with pytest.raises(EngineBusyError):
        model.places.reserve(SHARES[1], 4)
    model.reserve(SHARES[1], 3)
    assert model.open[0].lost is not None, "a request is whole or not there"
    assert model.places.live == 3


@settings(max_examples=200, deadline=None)
@given(
    at_once=st.integers(1, 3),
    queue=st.integers(0, 6),
    before=st.lists(st.tuples(st.sampled_from(SHARES), st.sampled_from([1, 1, 2])), max_size=8),
    counts=st.dictionaries(st.sampled_from(SHARES), st.integers(1, 2), min_size=1),
)
def test_several_shares_are_held_together_or_not_at_all(
    at_once: int, queue: int, before: list[tuple[Share, int]], counts: dict[Share, int]
) -> None:
    model = Model(at_once, queue)
    for share, count in before:
        model.reserve(share, count)
    lost = [reservation.lost for reservation in model.open]
    live = model.places.live
    try:
        made = model.places.reserve_all(counts)
    except EngineBusyError:
        assert live + sum(counts.values()) > at_once + queue, "while there is room anyone may come"
        assert model.places.live == live
        assert [reservation.lost for reservation in model.open] == lost, "nobody made room for nothing"
        with pytest.raises(EngineBusyError):
            model.places.check_all(counts)
        return
    assert {share: one.held for share, one in made.items()} == counts
    assert all(one.lost is None for one in made.values()), "none of them makes room for another"
    for one in made.values():
        one.close()


def test_the_time_to_come_back_is_that_of_the_shares_own_backlog() -> None:
    model = Model(4, 8)
    for _ in range(11):
        model.reserve(SHARES[0], 1)
    model.reserve(SHARES[1], 1)
    retries: list[float] = []
    for share, count in ((SHARES[0], 1), (SHARES[1], 9)):
        with pytest.raises(EngineBusyError) as refused:
            model.places.check(share, count)
        retries.append(refused.value.retry_after)
    assert retries[0] == pytest.approx(11 / 2)
    assert retries[1] == 1.0


def test_what_has_begun_makes_no_room_however_new_it_is() -> None:
    model = Model(2, 4)
    running: list[tuple[Reservation[DeltaStream], DeltaStream]] = []
    for _ in range(6):
        model.reserve(SHARES[0], 1)
        apply(model, running, "claim", 0, 1)
    for reservation in model.open[4:]:
        (stream,) = reservation.streams.values()
        cast(Sequence, stream.work).scheduled = 1.0
    model.reserve(SHARES[1], 1)
    assert [r.lost is not None for r in model.open] == [False] * 3 + [True] + [False] * 3
