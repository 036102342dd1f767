"""Guided decoding: which tokens a sequence's grammar allows next, and when its text is complete.

llguidance does the parsing. This module is imported when the first request has a grammar.
"""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict

import numpy as np
from llguidance import LLMatcher, LLTokenizer
from numpy.typing import NDArray

from server.errors import UnsupportedRequestError
from server.grammar.llg import compile_grammar, complaint, open_tokenizer
from server.grammar.text import GrammarRefusedError
from server.text.tokenizer import Tokenizer

FIELD = "response_format"
"""Request field named in errors: most grammars come from it."""
COMPILED = 32
"""Maximum number of compiled grammars that are cached."""
START_SECONDS = 0.2
"""CPU seconds that following a grammar may take, in addition to `TOKEN_SECONDS` for each token."""
TOKEN_SECONDS = 0.005
"""CPU seconds for each token. A grammar that takes longer would delay every sequence's next token."""

FREE_SECONDS = 0.001
"""CPU seconds for a token that are not counted as excess. Ordinary grammars stay below this."""
SHARE = 0.25
"""Share of the engine's time that the excess of all grammars together may take."""
OWN_SECONDS = 0.02
"""Seconds of excess that a single grammar may have even if the shared time is used up."""


class SharedTime:
    """Time budget that slow grammars share. Holds at most `SHARE` seconds and refills by `SHARE` a second."""

    def __init__(self) -> None:
        self._left, self._at = SHARE, time.monotonic()

    def spend(self, seconds: float) -> bool:
        """Take `seconds` from the budget. Return False if more has been taken than was left."""
        now = time.monotonic()
        self._left = min(SHARE, self._left + SHARE * (now - self._at)) - seconds
        self._at = now
        return self._left >= 0


class Guides:
    """Creates guides for one base's tokenizer. Use it on the event loop only."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._source = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._one = asyncio.Lock()
        self._time = SharedTime()

    async def guide(self, grammar: str) -> Guide:
        """Create a guide at the beginning of a grammar, which is compiled in a worker thread if not cached.

        Raises `UnsupportedRequestError` if that fails. Only llguidance's own limits apply here. Grammars from
        clients must be tried before, as `server.grammar.service` does.
        """
        matcher = self._compiled.get(grammar)
        if matcher is None:
            # Shielded: a thread cannot be stopped, so it goes on for others if this request is cancelled.
            matcher = await asyncio.shield(asyncio.create_task(self._matcher(grammar)))
        self._compiled.move_to_end(grammar)
        return Guide(matcher.deep_copy(), self._vocabulary, self._source.vocabulary_size, self._time)

    async def _matcher(self, grammar: str) -> LLMatcher:
        async with self._one:
            matcher = self._compiled.get(grammar)
            if matcher is None:
                try:
                    matcher = await asyncio.to_thread(self._compile, grammar)
                except GrammarRefusedError as error:
                    raise UnsupportedRequestError(f"the grammar cannot be used: {error}", FIELD) from error
                self._compiled[grammar] = matcher
            if len(self._compiled) > COMPILED:
                self._compiled.popitem(last=False)
            return matcher

    def _compile(self, grammar: str) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._source)
        return compile_grammar(self._tokenizer, grammar)


class Guide:
    """Tracks the position of one sequence in its grammar."""

    def __init__(
        self, matcher: LLMatcher, vocabulary: int, known: int, shared: SharedTime | None = None
    ) -> None:
        self._matcher = matcher
        self._shared = shared or SharedTime()
        self._excess = 0.0
        self._known = min(vocabulary, known)
        self._mask = np.zeros(vocabulary, np.bool_)
        self._tokens = 0
        self._seconds = 0.0

    @property
    def complete(self) -> bool:
        """True if no token can follow: the grammar is complete, or an end token was chosen."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def add(self, token: int) -> None:
        """Advance by the allowed token just chosen. Errors are raised by the next `allowed_tokens`."""
        began = time.thread_time()
        self._matcher.consume_token(token)
        self._tokens += 1
        self._seconds += time.thread_time() - began

    def allowed_tokens(self) -> NDArray[np.bool_]:
        """Return a mask [vocabulary] of the tokens that may come next, valid until the next call.

        Ids without text are never allowed. Raises `UnsupportedRequestError` if the grammar cannot be followed
        any further or takes too long.
        """
        began = time.thread_time()
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        spent = time.thread_time() - began
        self._seconds += spent
        if self._matcher.is_error():
            reason = complaint(self._matcher.get_error())
            raise UnsupportedRequestError(
                f"the request's grammar cannot be followed at this token: {reason}", FIELD
            )
        if self._is_slow(spent):
            raise UnsupportedRequestError("the grammar takes too long to follow; simplify it", FIELD)
        self._mask[: self._known] = np.unpackbits(bits, bitorder="little", count=self._known).view(np.bool_)
        return self._mask

    def _is_slow(self, spent: float) -> bool:
        """Count `spent` seconds for a token. Return True if the grammar exceeds its own limit or the one that
        all grammars share.
        """
        if self._seconds > START_SECONDS + TOKEN_SECONDS * self._tokens:
            return True
        excess = spent - FREE_SECONDS
        if excess <= 0:
            return False
        self._excess += excess
        return not self._shared.spend(excess) and self._excess > OWN_SECONDS
