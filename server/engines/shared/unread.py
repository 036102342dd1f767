"""Limits the memory of answers that clients have not read yet, and chooses the answer to drop beyond the
limit.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from server.request import TokenLogprob

STREAM_BYTES = 4 * 1024 * 1024
"""Maximum unread bytes of one answer: some 37,000 tokens, or 1,500 with twenty alternatives each."""
ALL_BYTES = 32 * 1024 * 1024
"""Maximum unread bytes of all answers of a base."""

EVENT_BYTES = 112
"""Bytes of one token in memory, measured on CPython 3.11."""
SCORE_BYTES = 122
"""Bytes of one log probability in memory, measured on CPython 3.11."""

Holder = TypeVar("Holder")


class Unread(Generic[Holder]):
    """Counts the bytes of answers that clients have not read yet.

    Use it on the event loop only. A holder is one answer. If it has more than `STREAM_BYTES`, it is dropped.
    If all together have more than `ALL_BYTES`, the largest one is dropped. `drop` is called with the holder
    to drop, and must call `forget` for it.
    """

    def __init__(self, drop: Callable[[Holder], None]) -> None:
        self._drop = drop
        self._held: dict[Holder, int] = {}
        self.held = 0
        """Bytes of unread answers of all holders."""
        self.dropped = 0
        """Number of holders that were dropped so far."""

    def add(self, holder: Holder, size: int) -> None:
        """Count `size` more bytes of unread answers for `holder`. If there are too many, drop it or another
        holder.
        """
        self.held += size
        held = self._held[holder] = self._held.get(holder, 0) + size
        if held > STREAM_BYTES:
            self._give_up(holder)
        elif self.held > ALL_BYTES:
            self._give_up(max(self._held, key=self._held.__getitem__))

    def take(self, holder: Holder, size: int) -> None:
        """Note that `size` bytes of `holder` have been read."""
        self.held -= size
        left = self._held[holder] - size
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]

    def forget(self, holder: Holder) -> None:
        """Note that `holder` has ended, and keeps no unread bytes. Idempotent."""
        self.held -= self._held.pop(holder, 0)

    def _give_up(self, holder: Holder) -> None:
        self.dropped += 1
        self._drop(holder)


def size_of(logprob: TokenLogprob | None) -> int:
    """Estimate the bytes of one token that waits to be read."""
    return EVENT_BYTES if logprob is None else EVENT_BYTES + SCORE_BYTES * (1 + len(logprob.top))
