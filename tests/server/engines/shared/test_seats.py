"""Which shares are expected back."""

from __future__ import annotations

from server.engines.shared.seats import Seats
from server.request import Share

POLITE, CROWD = Share("polite", ""), Share("crowd", "")
PATIENCE = 8


class Clocked:
    """Seats with a clock of steps."""

    def __init__(self) -> None:
        self.seats = Seats(PATIENCE)
        self.now = 0

    def leave(self, share: Share = POLITE) -> None:
        self.seats.leave(share, self.now)

    def wait(self, steps: int) -> None:
        self.now += steps
        self.seats.expire(self.now)

    def comes_back(self, share: Share = POLITE) -> None:
        self.leave(share)
        self.wait(1)
        self.seats.come(share)

    @property
    def expected(self) -> list[tuple[Share, int]]:
        return list(self.seats.expected())


def test_trust_is_won_and_lost() -> None:
    clocked = Clocked()
    clocked.leave()
    assert not clocked.expected, "nothing is known of it"
    clocked.seats.come(POLITE)
    for _ in range(20):
        clocked.comes_back()
    clocked.leave()
    assert clocked.expected == [(POLITE, 1)]
    clocked.wait(PATIENCE)
    assert clocked.expected
    clocked.wait(1)
    assert not clocked.expected
    for _ in range(2):
        clocked.leave()
        clocked.wait(PATIENCE + 1)
    clocked.leave()
    assert not clocked.expected


def test_rows_are_kept_within_a_part_and_from_those_beyond_theirs() -> None:
    clocked = Clocked()
    clocked.comes_back()
    for _ in range(5):
        clocked.leave()
    kept = clocked.seats.kept_from
    assert kept(CROWD, 4, {CROWD: 6, POLITE: 2}) == 2
    assert kept(CROWD, 4, {CROWD: 3}) == 0, "it has less than its part"
    assert kept(CROWD, 4, {CROWD: 4, POLITE: 4}) == 0
    assert kept(POLITE, 4, {POLITE: 5}) == 0, "nothing is kept from itself"
    assert kept(Share("crowd", "", background=True), 4, {POLITE: 1}) == 3
    assert kept(Share("crowd", "", background=True), 4, {POLITE: 0}) == 0, "nothing runs"


def test_background_work_is_never_waited_for() -> None:
    clocked = Clocked()
    for _ in range(5):
        clocked.comes_back(Share("polite", "", background=True))
    clocked.leave(Share("polite", "", background=True))
    assert not clocked.expected


def test_shares_that_are_gone_are_forgotten() -> None:
    clocked = Clocked()
    for number in range(1000):
        clocked.comes_back(Share(f"key {number}", ""))
        clocked.leave(Share(f"key {number}", ""))
        clocked.wait(PATIENCE + 1)
    assert not clocked.expected
    assert not clocked.seats._departures  # pyright: ignore[reportPrivateUsage]
