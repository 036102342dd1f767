"""Queues requests in front of vLLM's engine core, so that OneSeek's fair order applies instead of the core's
own order.

At most `at_once` requests are inside the core, and `server.engines.shared.fairness` chooses which one enters
next. A share is all requests with the same API key and adapter. A share that runs fewer requests than its
fair part comes first, then the share that has received the fewest tokens. If a client usually sends its next
request at once, its place in the core is kept free for a moment (`Seats`). A request inside the core is never
put back into the queue: to continue the request, the core would have only its tokens, not the state of its
seed, penalties and grammar.
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
"""Seconds for which a client's place in the batch is kept free, if the client usually sends its next request
at once.
"""

Later = Callable[[float, Callable[[], None]], object]
"""Type of a function that calls another function after a number of seconds."""


@dataclass(frozen=True, slots=True, eq=False)
class FrontTurn:
    """A request that waits in front of vLLM's engine core, or is inside it."""

    name: str
    """Id that is unique among the requests of this queue."""
    share: Share
    prompt: int
    """Number of prompt tokens, which count as used by the request's API key and adapter when the request
    enters the core.
    """
    enter: Callable[[], None]
    """Called when the request may enter the core. Not called if `FrontQueue.add` lets the request in at
    once.
    """

    @property
    def held(self) -> bool:
        """False: a request in this queue can always run as soon as the core has a free place."""
        return False


class FrontQueue:
    """Tracks which requests are inside vLLM's engine core, and which wait for a place in it. Use it on the
    event loop only.
    """

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
        """True while a later check is scheduled, because a free place is kept for a client."""

    def add(self, turn: FrontTurn) -> bool:
        """Queue the request `turn`. Return True if it may enter the core at once."""
        self._waiting[turn.name] = turn
        self._queue.add(turn)
        self._seats.come(turn.share)
        return self._let_in(turn)

    def leave(self, name: str) -> None:
        """Record that the request `name` has ended or was cancelled, and let waiting requests enter the core.
        Idempotent.
        """
        turn = self._inside.pop(name, None)
        if turn is not None:
            self._rows[turn.share] -= 1
            self._seats.leave(turn.share, self._clock())
            self._let_in()
        elif name in self._waiting:
            self._queue.remove(self._waiting.pop(name))

    def served(self, name: str, tokens: int) -> None:
        """Record that `tokens` tokens were generated for the request `name`, so that they count as used by
        its API key and adapter.
        """
        turn = self._inside.get(name)
        if turn is not None:
            self._queue.charge(turn.share, OUTPUT_PRICE * tokens)

    def forget(self, digest: str) -> None:
        """Drop the token counters of the adapter `digest`, which was unloaded."""
        for share in self._queue.known():
            if share.adapter == digest and not self._rows[share]:
                self._queue.forget(share)

    def clear(self) -> None:
        """Drop all requests, because the core has stopped. None of them enters the core any more."""
        self._queue = FairQueue[FrontTurn]()
        self._waiting.clear()
        self._inside.clear()
        self._rows.clear()
        self._seats = Seats(PATIENCE)

    @property
    def inside(self) -> int:
        """Number of requests that are inside the core."""
        return len(self._inside)

    @property
    def waiting(self) -> int:
        """Number of requests that wait to enter the core."""
        return len(self._waiting)

    def _let_in(self, newcomer: FrontTurn | None = None) -> bool:
        """Let waiting requests enter the core while it has room. Return True if `newcomer` may enter; its
        function `enter` is not called then.
        """
        entered = False
        while self._waiting and len(self._inside) < self._at_once:
            self._seats.expire(self._clock())
            shares = self._queue.counts().keys() | {share for share, rows in self._rows.items() if rows}
            shares |= {share for share, _ in self._seats.expected()}
            part = part_of(self._at_once, sum(not share.background for share in shares))
            turn = next(self._queue.in_order(1, self._rows, part))
            kept = self._seats.kept_from(turn.share, part, self._rows)
            if kept and len(self._inside) + kept >= self._at_once:
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
