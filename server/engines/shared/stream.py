"""One request's answer as it reaches the event loop, where its tokens become text."""

from __future__ import annotations

import asyncio
import time
from collections import deque
from functools import cached_property
from typing import Protocol

import msgspec

from server.engines.shared.unread import Unread, size_of
from server.errors import EngineError, UnreadAnswerError
from server.request import Delta, FinishReason, GenerationRequest, Timing, TokenLogprob, Usage
from server.text.detokenizer import TextStream
from server.text.tokenizer import Tokenizer

PIECE_BYTES = 64 * 1024
"""Most of what waits that becomes one delta, by `size_of`: a slow client is written to in pieces."""


class RequestWork(Protocol):
    """A request as an engine works on it."""

    @property
    def request(self) -> GenerationRequest:
        """What was asked for."""
        ...

    @property
    def arrived(self) -> float:
        """When it was admitted, in seconds of `time.perf_counter()`."""
        ...

    @property
    def scheduled(self) -> float | None:
        """When the first step that worked on it began."""
        ...

    @property
    def cached(self) -> int:
        """Prompt tokens found in the prefix cache."""
        ...


class StepEvent(msgspec.Struct, frozen=True, gc=False):
    """What one step of the engine did for one request."""

    token_id: int | None
    """None where no token was asked for (`max_tokens` 0)."""
    logprob: TokenLogprob | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    completes: bool = False
    """Whether the token is the last of a grammar, which ends the text and, unlike an end token, is shown."""


class DeltaStream:
    """Collects a request's events on the event loop and makes deltas of them, several at once if they wait.

    Text is made here, not in the engine: the next step runs meanwhile. A stop string is therefore found one
    step late; the step's extra token is dropped, and the caller cancels the work. What waits is counted by
    `unread`, the oldest event apart.
    """

    def __init__(self, work: RequestWork, tokenizer: Tokenizer, unread: Unread[DeltaStream]) -> None:
        self.work = work
        self._tokenizer = tokenizer
        self._unread = unread
        self.done = False
        """Whether the last delta was made: nothing more will come."""
        self._events: deque[StepEvent] = deque()
        self._error: EngineError | None = None
        self._waiter: asyncio.Future[None] | None = None
        self._first_token: float | None = None
        self._tokens = 0

    def feed(self, event: StepEvent) -> None:
        """Add an event; those after an error are dropped. On the event loop."""
        if self._error is not None:
            return
        if self._first_token is None:
            self._first_token = time.perf_counter()
        self._events.append(event)
        if len(self._events) > 1:
            self._unread.add(self, size_of(event.logprob))
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def fail(self, error: EngineError) -> None:
        """End the answer with an error, after what has arrived. On the event loop."""
        self._error = error
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def drop(self) -> None:
        """End the answer because nobody reads it; what waits is lost. On the event loop."""
        self.discard()
        self.fail(UnreadAnswerError("The answer was not read as fast as it was written, and has been ended."))

    def discard(self) -> None:
        """Forget what waits: its reader is gone. Idempotent."""
        self._events.clear()
        self._unread.forget(self)

    async def next(self) -> Delta:
        """The next delta. Raises the stream's error once the events before it are used up."""
        while not self._events:
            if self._error is not None:
                self.done = True
                raise self._error
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._delta()

    @cached_property
    def _text(self) -> TextStream:
        request = self.work.request
        sampling, before = request.sampling, request.prompt if request.continues else ()
        return TextStream(
            self._tokenizer, sampling.stop, sampling.min_tokens, prompt=before, marks=sampling.marks
        )

    def _delta(self) -> Delta:
        if len(self._events) == 1 and self._events[0].finish_reason is None:
            return self._one(self._events.popleft())
        return self._several()

    def _one(self, event: StepEvent) -> Delta:
        """What nearly every token becomes."""
        assert event.token_id is not None, "only a last event has no token"
        text, stop = self._text.push(event.token_id)
        self._tokens += 1
        ids, logprobs = (event.token_id,), () if event.logprob is None else (event.logprob,)
        if stop is None:
            return Delta(text, ids, logprobs, event.prompt_logprobs)
        return Delta(text, ids, logprobs, event.prompt_logprobs, "stop", stop, self._end(), self._timing())

    def _several(self) -> Delta:
        pieces: list[str] = []
        ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        prompt_logprobs = self._events[0].prompt_logprobs
        finish: FinishReason | None = None
        stop: str | int | None = None
        size = 0
        while self._events and finish is None and size < PIECE_BYTES:
            event = self._events.popleft()
            size += size_of(event.logprob)
            if self._events:
                self._unread.take(self, size_of(self._events[0].logprob))
            finish, stop = event.finish_reason, event.stop_reason
            if event.token_id is not None:
                ids.append(event.token_id)
                if event.logprob is not None:
                    logprobs.append(event.logprob)
                if finish == "stop" and not event.completes:  # an end token: counted, never shown
                    continue
                shown, matched = self._text.push(event.token_id)
                pieces.append(shown)
                if matched is not None:
                    finish, stop = "stop", matched
        if finish is not None and not isinstance(stop, str):
            pieces.append(self._text.finish())
        self._tokens += len(ids)
        return Delta(
            text="".join(pieces),
            token_ids=tuple(ids),
            logprobs=tuple(logprobs),
            prompt_logprobs=prompt_logprobs,
            finish_reason=finish,
            stop_reason=stop,
            usage=self._end() if finish is not None else None,
            timing=self._timing() if finish is not None else None,
        )

    def _end(self) -> Usage:
        self.done = True
        return Usage(len(self.work.request.prompt), self.work.cached, self._tokens)

    def _timing(self) -> Timing:
        now = time.perf_counter()
        first = self._first_token or now
        return Timing(self.work.arrived, self.work.scheduled or first, first, now)
