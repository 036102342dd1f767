"""Buffers an answer in the server's process (the ingress) while a replica of the engine generates it."""

from __future__ import annotations

import time

import msgspec

from server.engines.shared.reader_queue import ReaderQueue
from server.engines.shared.unread import Unread, size_of
from server.errors import EngineError
from server.request import Delta, GenerationRequest, Timing


class RemoteWork:
    """A request that a replica of the engine serves, with the times that its answer reports. See
    `RequestWork`.
    """

    def __init__(self, request: GenerationRequest) -> None:
        self.request = request
        self.arrived = time.perf_counter()
        self.scheduled: float | None = None
        """Time at which the first tokens of the answer arrived; None before that."""
        self.cached = 0


class RemoteAnswer:
    """Buffers the deltas of one answer until its client reads them.

    `unread` limits the buffered bytes: an answer whose client reads too slowly is dropped.
    """

    def __init__(self, request: GenerationRequest, unread: Unread[RemoteAnswer]) -> None:
        self.work = RemoteWork(request)
        self.replica = ""
        """Id of the replica that generates the answer."""
        self.done = False
        """True once the last delta has been read."""
        self.finished = False
        """True once the last delta has arrived."""
        self._waiting = ReaderQueue[Delta](self, unread, _size)
        self._sent = False
        self._anew = False
        self._first: float | None = None

    def feed(self, delta: Delta) -> None:
        """Add a delta that has arrived from the replica."""
        now = time.perf_counter()
        if self._first is None:
            self._first = self.work.scheduled = now
        if delta.finish_reason is not None:
            self.finished = True
            delta = msgspec.structs.replace(delta, timing=self._own_timing(delta.timing, now))
        if self._anew:
            self._anew, delta = False, msgspec.structs.replace(delta, anew=True)
        self._waiting.put(delta)

    def begin_again(self) -> bool:
        """Drop the part of the answer that has arrived, so that another replica can generate the answer
        again.

        Return False, and keep what has arrived, if the client has received a part that cannot be taken back.
        """
        if self._sent and not self.work.request.whole:
            return False
        self._anew = self._sent
        self._first = self.work.scheduled = None
        self.discard()
        return True

    def fail(self, error: EngineError) -> None:
        """End the answer with `error`, which the client gets after the buffered deltas."""
        self._waiting.fail(error)

    def drop(self) -> None:
        """Drop the buffered deltas, and end the answer with an error, because its client does not read it."""
        self._waiting.drop()

    def discard(self) -> None:
        """Drop the buffered deltas, since nobody reads the answer any more. Idempotent."""
        self._waiting.discard()

    async def next(self) -> Delta:
        """Wait for the next delta, and return it. Raises the error that ended the answer after all deltas
        were read.
        """
        await self._waiting.wait()
        delta = self._waiting.take()
        self._sent = True
        self.done = delta.finish_reason is not None
        return delta

    def _own_timing(self, theirs: Timing | None, now: float) -> Timing | None:
        """Convert the replica's times, measured by the clock of another machine, to this machine's clock."""
        if theirs is None:
            return None
        arrived, first = self.work.arrived, self._first or now
        scheduled = min(first, arrived + max(0.0, theirs.scheduled - theirs.arrived))
        return Timing(arrived, scheduled, first, now)


def _size(delta: Delta) -> int:
    """Estimate the bytes that a buffered delta takes in memory."""
    scored = [*delta.logprobs, *(delta.prompt_logprobs or ())]
    return size_of(None) * max(1, len(delta.token_ids)) + sum(map(size_of, scored))
