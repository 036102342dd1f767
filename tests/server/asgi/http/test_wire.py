"""What connections share: how many there are, and who gives way; the files that the system lets them be."""

from __future__ import annotations

import sys

import pytest

from server.asgi.http import wire as module
from server.asgi.http.descriptors import SPARE, allow_connections
from server.asgi.http.wire import RESERVE, Connections, Place


class Idle:
    """A connection that notes when it has given way."""

    def __init__(self) -> None:
        self.gave_way = False

    def give_way(self) -> None:
        self.gave_way = True


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, as the module sees it."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_new_connection_takes_the_place_of_the_one_that_idled_longest(clock: list[float]) -> None:
    connections, places = Connections(2), [Idle(), Idle()]
    for place in places:
        assert connections.admit(place) is Place.WITHIN
        clock[0] += 1
    busy = places[0]
    connections.work(busy)
    assert connections.admit(Idle()) is Place.WITHIN
    assert (places[0].gave_way, places[1].gave_way) == (False, True)
    assert connections.admit(Idle()) is Place.BEYOND, "the newest has not idled"
    connections.rest(busy)
    clock[0] += 5
    assert connections.admit(Idle()) is Place.WITHIN


def test_connections_that_work_do_not_give_way(clock: list[float]) -> None:
    connections, busy = Connections(1), Idle()
    connections.admit(busy)
    connections.work(busy)
    clock[0] += 3600
    assert connections.admit(Idle()) is Place.BEYOND
    assert not busy.gave_way
    connections.forget(busy)
    assert connections.admit(Idle()) is Place.WITHIN


def test_of_those_beyond_the_limit_the_latest_wait_and_those_that_are_answered_stay() -> None:
    connections, beyond = Connections(1), [Idle() for _ in range(RESERVE + 3)]
    connections.admit(Idle())
    assert {connections.admit(connection) for connection in beyond} == {Place.BEYOND}
    assert [connection.gave_way for connection in beyond] == [True] * 3 + [False] * RESERVE
    for connection in beyond[3:]:
        connections.work(connection)
    assert connections.admit(Idle()) is Place.NOWHERE
    assert not any(connection.gave_way for connection in beyond[3:])
    connections.forget(beyond[3])
    assert connections.admit(Idle()) is Place.BEYOND


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such limit")
@pytest.mark.parametrize(
    ("soft", "hard", "allowed", "raised"),
    [
        (1024, 4096, 1000, 1000 + SPARE),
        (4096, 4096, 1000, None),
        (256, 600, 600 - SPARE, 600),
        (64, 64, 1, 64),
        (-1, -1, 1000, None),
        (256, -1, 1000, 1000 + SPARE),
    ],
)
def test_the_limit_of_open_files_is_raised_or_kept_to(
    monkeypatch: pytest.MonkeyPatch, soft: int, hard: int, allowed: int, raised: int | None
) -> None:
    import resource

    said, limits = list[str](), list[tuple[int, int]]()

    def get(_kind: int) -> tuple[int, int]:
        return soft, hard

    def put(_kind: int, pair: tuple[int, int]) -> None:
        limits.append(pair)

    monkeypatch.setattr(resource, "getrlimit", get)
    monkeypatch.setattr(resource, "setrlimit", put)
    assert allow_connections(1000, said.append) == allowed
    assert limits == ([(raised, hard)] if raised is not None else [])
    assert bool(said) is (allowed < 1000)
