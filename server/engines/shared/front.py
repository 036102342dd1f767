"""Holds requests back in front of a core that has an order of its own, so that the order is ours.

At most `at_once` are inside. Who enters next is decided as in `server.engines.shared.fairness`: a share
below its part of the rows first, then the least served. A row is kept for a moment for a share that is about
to come back (`Seats`). What is inside is not put back: a core takes a
request up again only from its tokens, which for seeds, penalties and grammars is not where it was.
"""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from server.engines.shared.fairness import OUTPUT_PRICE, PROMPT_PRICE, FairQueue, part_of
from server.engines.shared.seats import Seats
from server.request import Share

PATIENCE = 0.05
"""Seconds for which a row is kept."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function so many seconds later."""


@dataclass(frozen=True, slots=True, eq=False)
class FrontTurn:
    """One request that enters or waits."""

    name: str
    """Unique among those that are here."""
    share: Share
    prompt: int
    """Tokens that its share pays for when it enters."""
    enter: Callable[[], None]
    """Called when it enters, unless that is at once."""

    @property
    def held(self) -> bool:
        """It waits for nothing but a row."""
        return False


class FrontQueue:
    """Who is inside, and who waits outside. Used on the event loop alone."""

    def __init__(
        self, at_once: int, clock: Callable[[], float] = time.monotonic, later: Later | None = None
    ) -> None:
        self._at_once = at_once
        self._clock = clock
        self._later = later or _later
        self._queue = FairQueue[FrontTurn]()
        self._waiting: dict[str, FrontTurn] = {}
        self._inside: dict[str, FrontTurn] = {}
        self._rows: Counter[Share] = Counter()
        self._seats = Seats(PATIENCE)
        self._looks = False
        """True if it will look again, because a row is kept."""

    def add(self, turn: FrontTurn) -> bool:
        """Queue a request; whether it enters at once."""
        self._waiting[turn.name] = turn
        self._queue.add(turn)
        self._seats.come(turn.share)
        return self._let_in(turn)

    def leave(self, name: str) -> None:
        """A request has ended, or waits no more; others enter. Idempotent."""
        turn = self._inside.pop(name, None)
        if turn is not None:
            self._rows[turn.share] -= 1
            self._seats.leave(turn.share, self._clock())
            self._let_in()
        elif name in self._waiting:
            self._queue.remove(self._waiting.pop(name))

    def served(self, name: str, tokens: int) -> None:
        """Tokens were generated for a request."""
        turn = self._inside.get(name)
        if turn is not None:
            self._queue.charge(turn.share, OUTPUT_PRICE * tokens)

    def forget(self, digest: str) -> None:
        """Drop the counters of an adapter that is gone."""
        for share in self._queue.known():
            if share.adapter == digest and not self._rows[share]:
                self._queue.forget(share)

    def clear(self) -> None:
        """Forget everything: nothing enters any more."""
        self._queue = FairQueue[FrontTurn]()
        self._waiting.clear()
        self._inside.clear()
        self._rows.clear()
        self._seats = Seats(PATIENCE)

    @property
    def inside(self) -> int:
        """Requests that have entered and not left."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Requests that wait."""
        return len(self._waiting)

    def _let_in(self, newcomer: FrontTurn | None = None) -> bool:
        """Let enter whoever can; whether `newcomer` did, which is not called back then."""
        entered = False
        while self._waiting and len(self._inside) < self._at_once:
            self._seats.expire(self._clock())
            shares = self._queue.counts().keys() | {share for share, rows in self._rows.items() if rows}
            shares |= {share for share, _ in self._seats.expected()}
            part = part_of(self._at_once, sum(not share.background for share in shares))
            turn = next(self._queue.in_order(1, self._rows, part))
            kept = self._seats.kept_from(turn.share, part, self._rows)
            if len(self._inside) + kept >= self._at_once:
                self._look_again()
                break
            self._move(turn)
            if turn is newcomer:
                entered = True
            else:
                turn.enter()
        return entered

    def _look_again(self) -> None:
        def look() -> None:
            self._looks = False
            self._let_in()

        if not self._looks:
            self._looks = True
            self._later(PATIENCE, look)

    def _move(self, turn: FrontTurn) -> None:
        self._queue.remove(turn)
        del self._waiting[turn.name]
        self._inside[turn.name] = turn
        self._rows[turn.share] += 1
        self._queue.charge(turn.share, PROMPT_PRICE * turn.prompt)


def _later(seconds: float, call: Callable[[], None]) -> None:
    asyncio.get_running_loop().call_later(seconds, call)
