"""Queues requests in front of vLLM's engine core, so that OneSeek's fair order applies instead of the core's
own.

At most `at_once` requests are inside the core. `server.engines.shared.fairness` chooses the next one. A share
is all requests with the same API key and adapter. One that runs fewer requests than its fair part comes
first, then the share that was served least. If a client is expected to send its next request soon, its place
in the core is kept for a moment (`Seats`). A request inside the core is never put back into the queue. To
continue it, the core would have only its tokens, not the state of its seed, penalties and grammar.
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
"""Seconds for which a place in the batch is kept for a client that is expected to send its next request."""

Later = Callable[[float, Callable[[], None]], object]
"""Calls a function after a number of seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class FrontTurn:
    """A request that is in the engine's queue."""

    name: str
    """Id that is unique among the requests in this queue."""
    share: Share
    prompt: int
    """Number of tokens that the request's share is charged for when the request enters the engine."""
    enter: Callable[[], None]
    """Called when the request enters the engine core. Not called if `add` lets it enter at once."""

    @property
    def held(self) -> bool:
        """True if the request waits for nothing but a free row."""
        return False


class FrontQueue:
    """Tracks the requests that are inside the core, and those that wait. Use it on the event loop only."""

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
        """Queue a request. Return True if it enters the core at once."""
        self._waiting[turn.name] = turn
        self._queue.add(turn)
        self._seats.come(turn.share)
        return self._let_in(turn)

    def leave(self, name: str) -> None:
        """Record that a request has ended or was cancelled, and let waiting requests enter. Idempotent."""
        turn = self._inside.pop(name, None)
        if turn is not None:
            self._rows[turn.share] -= 1
            self._seats.leave(turn.share, self._clock())
            self._let_in()
        elif name in self._waiting:
            self._queue.remove(self._waiting.pop(name))

    def served(self, name: str, tokens: int) -> None:
        """Record that tokens were generated for a request, which its share is charged for."""
        turn = self._inside.get(name)
        if turn is not None:
            self._queue.charge(turn.share, OUTPUT_PRICE * tokens)

    def forget(self, digest: str) -> None:
        """Drop the counters of an adapter that is gone."""
        for share in self._queue.known():
            if share.adapter == digest and not self._rows[share]:
                self._queue.forget(share)

    def clear(self) -> None:
        """Forget all requests. None of them enters the core any more."""
        self._queue = FairQueue[FrontTurn]()
        self._waiting.clear()
        self._inside.clear()
        self._rows.clear()
        self._seats = Seats(PATIENCE)

    @property
    def inside(self) -> int:
        """Number of requests inside the core."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Number of requests that wait."""
        return len(self._waiting)

    def _let_in(self, newcomer: FrontTurn | None = None) -> bool:
        """Let waiting requests enter while there is room. Return True if `newcomer` is among them; its
        callback is not called then.
        """
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
