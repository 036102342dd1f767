"""What streams hold that their clients have not read: how much it is, and whose is dropped beyond that."""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from server.request import TokenLogprob

STREAM_BYTES = 4 * 1024 * 1024
"""Most that one answer may hold: some 37,000 tokens, or 1,500 with twenty alternatives each."""
ALL_BYTES = 32 * 1024 * 1024
"""Most that all answers of a base may hold together."""

EVENT_BYTES = 112
"""One token in memory, measured on CPython 3.11."""
SCORE_BYTES = 122
"""One log probability in memory, measured on CPython 3.11."""

Holder = TypeVar("Holder")


class Unread(Generic[Holder]):
    """Counts what holders keep for readers who are behind. Used on the event loop alone.

    A holder with more than `STREAM_BYTES` is dropped, and the one with the most if all have more than
    `ALL_BYTES`: `drop` is called with it, and has to `forget` it.
    """

    def __init__(self, drop: Callable[[Holder], None]) -> None:
        self._drop = drop
        self._held: dict[Holder, int] = {}
        self.held = 0
        """Bytes of all holders."""
        self.dropped = 0
        """Holders that were dropped so far."""

    def add(self, holder: Holder, size: int) -> None:
        """`holder` keeps `size` bytes more; it or another may be dropped for it."""
        self.held += size
        held = self._held[holder] = self._held.get(holder, 0) + size
        if held > STREAM_BYTES:
            self._give_up(holder)
        elif self.held > ALL_BYTES:
            self._give_up(max(self._held, key=self._held.__getitem__))

    def take(self, holder: Holder, size: int) -> None:
        """`size` bytes of `holder` have been read."""
        self.held -= size
        left = self._held[holder] - size
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]

    def forget(self, holder: Holder) -> None:
        """`holder` keeps nothing any more. Idempotent."""
        self.held -= self._held.pop(holder, 0)

    def _give_up(self, holder: Holder) -> None:
        self.dropped += 1
        self._drop(holder)


def size_of(logprob: TokenLogprob | None) -> int:
    """Bytes of one token that waits, about."""
    return EVENT_BYTES if logprob is None else EVENT_BYTES + SCORE_BYTES * (1 + len(logprob.top))
