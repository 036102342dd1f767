"""Keeps sequences to their grammars: which tokens each may take next, and when its text is complete.

llguidance does the parsing. Imported with the first grammar alone.
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
"""The request's field that most grammars come from."""
COMPILED = 32
"""Compiled grammars that are kept."""
START_SECONDS = 0.2
"""Processor time that following a grammar may cost at any point, and…"""
TOKEN_SECONDS = 0.005
"""…for each token beside that: a grammar that costs more would hold up everyone's next token."""

FREE_SECONDS = 0.001
"""Processor time of a token that an ordinary grammar stays below."""
SHARE = 0.25
"""Part of the engine's time that grammars may take beyond that, all of them together."""
OWN_SECONDS = 0.02
"""What one may have taken beyond it when there is none left."""


class SharedTime:
    """What is left of the time for slow grammars: a quarter of a second at once, and a quarter of each."""

    def __init__(self) -> None:
        self._left, self._at = SHARE, time.monotonic()

    def spend(self, seconds: float) -> bool:
        """Take `seconds`; whether there were as many."""
        now = time.monotonic()
        self._left = min(SHARE, self._left + SHARE * (now - self._at)) - seconds
        self._at = now
        return self._left >= 0


class Guides:
    """Makes guides for one base's tokenizer. Used on the event loop alone."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._source = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._one = asyncio.Lock()
        self._time = SharedTime()

    async def guide(self, grammar: str) -> Guide:
        """A guide at the grammar's beginning. Compiles in a worker thread what is not known yet.

        Raises `UnsupportedRequestError` where that fails. No bound but llguidance's own holds here: whoever
        takes grammars from clients tries them first, as `server.grammar.service` does.
        """
        matcher = self._compiled.get(grammar)
        if matcher is None:
            # Goes on where the request that asked is given up: a thread cannot be stopped, and one is enough.
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
    """One sequence's place in its grammar."""

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
        """Whether nothing can follow: the grammar has ended, or an end token was taken."""
        return self._matcher.is_stopped() and not self._matcher.is_error()

    def add(self, token: int) -> None:
        """Go on by the token just chosen, which was allowed; trouble shows with the next mask."""
        began = time.thread_time()
        self._matcher.consume_token(token)
        self._tokens += 1
        self._seconds += time.thread_time() - began

    def allowed_tokens(self) -> NDArray[np.bool_]:
        """Which tokens may come next [vocabulary]; valid until the next call. Never one without a text.

        Raises `UnsupportedRequestError` where the grammar cannot be followed any further.
        """
        began = time.thread_time()
        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        spent = time.thread_time() - began
        self._seconds += spent
        if self._matcher.is_error():
            reason = complaint(self._matcher.get_error())
            raise UnsupportedRequestError(f"the grammar cannot be followed here: {reason}", FIELD)
        if self._is_slow(spent):
            raise UnsupportedRequestError("the grammar takes too long to follow; make it simpler", FIELD)
        self._mask[: self._known] = np.unpackbits(bits, bitorder="little", count=self._known).view(np.bool_)
        return self._mask

    def _is_slow(self, spent: float) -> bool:
        """Whether it holds others up, alone or with other slow ones, after `spent` seconds for a token."""
        if self._seconds > START_SECONDS + TOKEN_SECONDS * self._tokens:
            return True
        excess = spent - FREE_SECONDS
        if excess <= 0:
            return False
        self._excess += excess
        return not self._shared.spend(excess) and self._excess > OWN_SECONDS
