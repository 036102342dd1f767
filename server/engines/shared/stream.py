"""Turns the tokens that an engine generates for one request into the text of its answer, on the event
loop.
"""

from __future__ import annotations

import time
from functools import cached_property
from typing import Protocol

import msgspec

from server.engines.shared.reader_queue import ReaderQueue
from server.engines.shared.unread import Unread, size_of
from server.errors import EngineError
from server.request import Delta, FinishReason, GenerationRequest, Timing, TokenLogprob, Usage
from server.text.detokenizer import TextStream
from server.text.tokenizer import Tokenizer

PIECE_BYTES = 64 * 1024
"""Maximum bytes of one delta in memory, as counted by `size_of`. If more tokens wait for a slow client, they
are sent in several deltas.
"""


class RequestWork(Protocol):
    """A request inside an engine, with the times and counts that its answer reports."""

    @property
    def request(self) -> GenerationRequest:
        """The request that is being answered."""
        ...

    @property
    def arrived(self) -> float:
        """Time at which the request was admitted, in seconds of `time.perf_counter()`."""
        ...

    @property
    def scheduled(self) -> float | None:
        """Time at which the first step that computed this request began, in seconds of `time.perf_counter()`;
        None while the request waits.
        """
        ...

    @property
    def cached(self) -> int:
        """Number of the request's prompt tokens that were found in the prefix cache."""
        ...


class StepEvent(msgspec.Struct, frozen=True, gc=False):
    """What one engine step produced for one request."""

    token_id: int | None
    """The token that was generated; None if `max_tokens` is 0."""
    logprob: TokenLogprob | None = None
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    finish_reason: FinishReason | None = None
    stop_reason: int | None = None
    completes: bool = False
    """True if the token completes the text that a grammar allows. It ends the answer and, unlike an end
    token, is part of the text.
    """


class DeltaStream:
    """Collects the tokens of one request on the event loop, and returns them as deltas with text. Tokens that
    wait together become one delta.

    Tokens are decoded to text here, while the engine runs the next step. A stop string is therefore found one
    step late: the extra token is dropped, and the caller aborts the request in the engine. `unread` counts
    the bytes of waiting tokens, to limit the memory of answers that clients do not read.
    """

    def __init__(self, work: RequestWork, tokenizer: Tokenizer, unread: Unread[DeltaStream]) -> None:
        self.work = work
        self._tokenizer = tokenizer
        self.done = False
        """True if the last delta was returned: nothing more will come."""
        self._events = ReaderQueue[StepEvent](self, unread, _size)
        self._first_token: float | None = None
        self._tokens = 0
        self._told = False
        """True once a delta has reported the number of prompt tokens found in the prefix cache."""

    def feed(self, event: StepEvent) -> None:
        """Add the result of an engine step. Results after an error are dropped. Call this on the event
        loop.
        """
        if self._first_token is None:
            self._first_token = time.perf_counter()
        self._events.put(event)

    def fail(self, error: EngineError) -> None:
        """End the answer with `error`, after the tokens that have arrived. Call this on the event loop."""
        self._events.fail(error)

    def drop(self) -> None:
        """End the answer because its client does not read it, and drop the tokens that wait. Call this on the
        event loop.
        """
        self._events.drop()

    def discard(self) -> None:
        """Drop the tokens that wait, since nobody reads the answer any more. Idempotent."""
        self._events.discard()

    async def next(self) -> Delta:
        """Wait for tokens, and return them as the next delta. Raises the answer's error once all tokens
        before it were returned.
        """
        if not self._events.items:
            try:
                await self._events.wait()
            except EngineError:
                self.done = True
                raise
        return self._delta()

    @cached_property
    def _text(self) -> TextStream:
        request = self.work.request
        sampling, before = request.sampling, request.prompt if request.continues else ()
        return TextStream(
            self._tokenizer, sampling.stop, sampling.min_tokens, prompt=before, marks=sampling.marks
        )

    def _delta(self) -> Delta:
        waiting = self._events.items
        if len(waiting) == 1 and waiting[0].finish_reason is None:
            return self._one(self._events.take())
        return self._several()

    def _one(self, event: StepEvent) -> Delta:
        """Return the delta of a single token, which is the common case."""
        assert event.token_id is not None, "an event without a token must be the last event of the answer"
        text, stop = self._text.push(event.token_id)
        self._tokens += 1
        ids, logprobs = (event.token_id,), () if event.logprob is None else (event.logprob,)
        if stop is None and self._told:
            return Delta(text, ids, logprobs, event.prompt_logprobs)
        return Delta(
            text,
            ids,
            logprobs,
            event.prompt_logprobs,
            "stop" if stop is not None else None,
            stop,
            self._end() if stop is not None else None,
            self._timing() if stop is not None else None,
            cached_tokens=self._cached(),
        )

    def _several(self) -> Delta:
        pieces: list[str] = []
        ids: list[int] = []
        logprobs: list[TokenLogprob] = []
        prompt_logprobs = self._events.items[0].prompt_logprobs
        finish: FinishReason | None = None
        stop: str | int | None = None
        size = 0
        while self._events.items and finish is None and size < PIECE_BYTES:
            event = self._events.take()
            size += size_of(event.logprob)
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
            cached_tokens=self._cached(),
        )

    def _cached(self) -> int | None:
        """Return the number of prompt tokens found in the prefix cache at the first call, and None at later
        calls.
        """
        if self._told:
            return None
        self._told = True
        return self.work.cached

    def _end(self) -> Usage:
        self.done = True
        return Usage(len(self.work.request.prompt), self.work.cached, self._tokens)

    def _timing(self) -> Timing:
        now = time.perf_counter()
        first = self._first_token or now
        return Timing(self.work.arrived, self.work.scheduled or first, first, now)


def _size(event: StepEvent) -> int:
    return size_of(event.logprob)
