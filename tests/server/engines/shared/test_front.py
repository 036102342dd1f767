"""Who enters a core that has an order of its own."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given, settings
from hypothesis import strategies as st

from server.engines.shared.fairness import FairQueue
from server.engines.shared.front import PATIENCE, FrontQueue, FrontTurn
from server.request import Share

SHARES = [Share("a", "sv"), Share("b", "sv"), Share("a", "")]


class Front:
    """A front queue whose entries are written down."""

    def __init__(self, at_once: int) -> None:
        self.now = 0.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.queue = FrontQueue(
            at_once, lambda: self.now, lambda seconds, call: self.later.append((self.now + seconds, call))
        )
        self.inside: dict[str, Share] = {}
        self.outside: dict[str, Share] = {}
        self.entered: list[Share] = []
        self.number = 0

    def come(self, share: Share, prompt: int = 10) -> str:
        self.number += 1
        name = f"r{self.number}"
        self.outside[name] = share
        if self.queue.add(FrontTurn(name, share, prompt, lambda: self._enter(name))):
            self._enter(name)
        return name

    def _enter(self, name: str) -> None:
        share = self.inside[name] = self.outside.pop(name)
        self.entered.append(share)

    def wait(self, seconds: float) -> None:
        self.now += seconds
        due = [entry for entry in self.later if entry[0] <= self.now]
        self.later = [entry for entry in self.later if entry[0] > self.now]
        for _, call in due:
            call()

    def go(self, name: str) -> None:
        self.inside.pop(name, None)
        self.outside.pop(name, None)
        self.queue.leave(name)
        self.queue.leave(name)


@settings(max_examples=100, deadline=None)
@given(
    at_once=st.integers(1, 5),
    actions=st.lists(st.tuples(st.sampled_from(["come", "come", "go", "serve", "wait"]), st.integers(0, 50))),
)
def test_no_row_idles_for_long_and_nobody_is_lost(at_once: int, actions: list[tuple[str, int]]) -> None:
    front = Front(at_once)
    for what, which in actions:
        known = [*front.inside, *front.outside]
        if what == "come":
            front.come(SHARES[which % len(SHARES)])
        elif what == "wait":
            front.wait(which / 1000)
        elif known and what == "go":
            front.go(known[which % len(known)])
        elif known:
            front.queue.served(known[which % len(known)], which)
        assert len(front.inside) == front.queue.inside <= at_once
        assert len(front.outside) == front.queue.waiting
        assert not front.outside or len(front.inside) == at_once or front.later
    for _ in range(4):
        front.wait(2 * PATIENCE)
    assert not front.outside or len(front.inside) == at_once
    while front.inside:
        front.go(next(iter(front.inside)))
    assert not front.outside


def test_a_crowd_leaves_each_other_share_its_rows() -> None:
    front = Front(4)
    crowd, other = SHARES[:2]
    for _ in range(50):
        front.come(crowd)
    for _ in range(10):
        front.come(other)
    for _ in range(2):
        front.go(next(name for name, share in front.inside.items() if share == crowd))
    assert sorted(front.inside.values()) == [crowd, crowd, other, other]
    for _ in range(20):
        front.go(next(iter(front.inside)))
        if other in front.outside.values():
            assert list(front.inside.values()).count(other) == 2


def test_of_equals_the_least_served_enters() -> None:
    front = Front(1)
    first = front.come(SHARES[0])
    front.come(SHARES[0])
    front.come(SHARES[1])
    front.queue.served(first, 1000)
    front.go(first)
    front.go(next(iter(front.inside)))
    assert front.entered == [SHARES[0], SHARES[1], SHARES[0]]


def test_a_share_that_comes_back_has_no_credit() -> None:
    queue = FairQueue[FrontTurn]()
    queue.add(FrontTurn("busy", SHARES[0], 10, lambda: None))
    queue.charge(SHARES[0], 1000)
    queue.add(FrontTurn("idle", SHARES[1], 10, lambda: None))
    assert queue.served(SHARES[1]) == queue.served(SHARES[0]) == 1000


def test_a_row_is_kept_for_who_comes_back_at_once() -> None:
    front = Front(2)
    crowd, polite = SHARES[:2]
    name = front.come(polite)
    for _ in range(20):
        front.come(crowd)
    waited = 0
    for _ in range(10):
        front.go(name)
        front.wait(PATIENCE / 2)
        name = front.come(polite)
        waited += name not in front.inside
        while name not in front.inside:
            front.go(next(one for one, share in front.inside.items() if share == crowd))
    assert waited == 1, "the first time, when it was not known to come back"
    front.go(name)
    assert list(front.inside.values()) == [crowd]
    front.wait(2 * PATIENCE)
    assert list(front.inside.values()) == [crowd, crowd]
