"""Limits the memory of answers that clients have not read yet, and chooses which answer to drop if the limit
is exceeded.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from server.request import TokenLogprob

STREAM_BYTES = 4 * 1024 * 1024
"""Maximum bytes of one answer that its client has not read: some 37,000 tokens, or 1,500 with the log
probabilities of twenty alternatives each.
"""
ALL_BYTES = 32 * 1024 * 1024
"""Maximum number of bytes, in all answers of a base together, that clients have not read yet."""

EVENT_BYTES = 112
"""Bytes that one unread token takes in memory, measured on CPython 3.11."""
SCORE_BYTES = 122
"""Bytes that one unread log probability takes in memory, measured on CPython 3.11."""

Holder = TypeVar("Holder")


class Unread(Generic[Holder]):
    """Counts the bytes of answers that clients have not read yet, and drops answers beyond two limits.

    A holder is one answer. A holder with more than `STREAM_BYTES` is dropped. If all holders together have
    more than `ALL_BYTES`, the largest one is dropped. `drop` is called with the holder to drop, and must call
    `forget` for it. Use it on the event loop only.
    """

    def __init__(self, drop: Callable[[Holder], None]) -> None:
        self._drop = drop
        self._held: dict[Holder, int] = {}
        self.held = 0
        """Bytes of unread answers of all holders."""
        self.dropped = 0
        """Number of holders that were dropped so far."""

    def add(self, holder: Holder, size: int) -> None:
        """Count `size` more unread bytes for the answer `holder`. If this exceeds a limit, drop `holder` or
        the largest answer.
        """
        self.held += size
        held = self._held[holder] = self._held.get(holder, 0) + size
        if held > STREAM_BYTES:
            self._give_up(holder)
        elif self.held > ALL_BYTES:
            self._give_up(max(self._held, key=self._held.__getitem__))

    def take(self, holder: Holder, size: int) -> None:
        """Record that the client has read `size` bytes of the answer `holder`."""
        self.held -= size
        left = self._held[holder] - size
        if left:
            self._held[holder] = left
        else:
            del self._held[holder]

    def forget(self, holder: Holder) -> None:
        """Record that the answer `holder` has ended, so that it has no unread bytes. Idempotent."""
        self.held -= self._held.pop(holder, 0)

    def _give_up(self, holder: Holder) -> None:
        self.dropped += 1
        self._drop(holder)


def size_of(logprob: TokenLogprob | None) -> int:
    """Estimate the bytes in memory of one token, with its log probabilities, that the client has not read
    yet.
    """
    return EVENT_BYTES if logprob is None else EVENT_BYTES + SCORE_BYTES * (1 + len(logprob.top))
