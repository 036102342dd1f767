"""Guided decoding: tells which tokens a sequence's grammar allows next, and when its text is complete.

The library llguidance does the parsing. This module is imported when the first request with a grammar
arrives.
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
"""Request field that errors about grammars name as the cause, since most grammars come from
`response_format`.
"""
COMPILED = 32
"""Maximum number of compiled grammars in the cache."""
START_SECONDS = 0.2
"""CPU seconds that a grammar may take for a whole answer, in addition to `TOKEN_SECONDS` for each token."""
TOKEN_SECONDS = 0.005
"""CPU seconds that a grammar may take for each token on average. Slower grammars would delay the next token
of every sequence.
"""

FREE_SECONDS = 0.001
"""CPU seconds per token that do not count against a grammar. Only time beyond this does; ordinary grammars
take less.
"""
SHARE = 0.25
"""Fraction of the engine's time that all grammars together may take beyond `FREE_SECONDS` per token."""
OWN_SECONDS = 0.02
"""Seconds beyond `FREE_SECONDS` per token that each grammar may take in total, even if the budget of all
grammars is used up.
"""


class SharedTime:
    """Time budget that slow grammars share.

    It holds at most `SHARE` seconds and is refilled by `SHARE` seconds per second.
    """

    def __init__(self) -> None:
        self._left, self._at = SHARE, time.monotonic()

    def spend(self, seconds: float) -> bool:
        """Take `seconds` from the budget. Return False if the budget is overdrawn after that."""
        now = time.monotonic()
        self._left = min(SHARE, self._left + SHARE * (now - self._at)) - seconds
        self._at = now
        return self._left >= 0


class Guides:
    """Creates guides (grammar states of sequences) for one base model's tokenizer.

    Not thread-safe: use it on the event loop only.
    """

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._source = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._one = asyncio.Lock()
        self._time = SharedTime()

    async def guide(self, grammar: str) -> Guide:
        """Create a guide (a sequence's state in its grammar) at the start of `grammar`. The grammar is
        compiled in a worker thread if it is not cached.

        Raises `UnsupportedRequestError` if the grammar cannot be compiled. Only llguidance's own limits apply
        here, so grammars from clients must be checked before, as `server.grammar.service` does.
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
                    raise UnsupportedRequestError(
                        f"the request's grammar cannot be used: {error}", FIELD
                    ) from error
                self._compiled[grammar] = matcher
            if len(self._compiled) > COMPILED:
                self._compiled.popitem(last=False)
            return matcher

    def _compile(self, grammar: str) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._source)
        return compile_grammar(self._tokenizer, grammar)


class Guide:
    """Tracks how far one sequence has followed its grammar, and tells which tokens may come next."""

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
        """True if no token can follow: the text completes the grammar, or an end token was chosen."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def add(self, token: int) -> None:
        """Advance the grammar by `token`, which was just chosen.

        If that fails, the next call of `allowed_tokens` raises the error.
        """
        began = time.thread_time()
        self._matcher.consume_token(token)
        self._tokens += 1
        self._seconds += time.thread_time() - began

    def allowed_tokens(self) -> NDArray[np.bool_]:
        """Return a mask [vocabulary] of the tokens that the grammar allows next. It is valid until the next
        call.

        Token ids without text are never allowed. Raises `UnsupportedRequestError` if the grammar cannot be
        followed any further or takes too long.
        """
        began = time.thread_time()
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        spent = time.thread_time() - began
        self._seconds += spent
        if self._matcher.is_error():
            reason = complaint(self._matcher.get_error())
            raise UnsupportedRequestError(
                f"the answer cannot go on as the request's grammar demands: {reason}; simplify the grammar",
                FIELD,
            )
        if self._is_slow(spent):
            raise UnsupportedRequestError(
                "checking the answer against the request's grammar takes too long; simplify the grammar",
                FIELD,
            )
        self._mask[: self._known] = np.unpackbits(bits, bitorder="little", count=self._known).view(np.bool_)
        return self._mask

    def _is_slow(self, spent: float) -> bool:
        """Count the `spent` CPU seconds of one token.

        Return True if the grammar exceeds its own time limit or the limit that all grammars share.
        """
        if self._seconds > START_SECONDS + TOKEN_SECONDS * self._tokens:
            return True
        excess = spent - FREE_SECONDS
        if excess <= 0:
            return False
        self._excess += excess
        return not self._shared.spend(excess) and self._excess > OWN_SECONDS
