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
START_SECONDS = 1.0
"""Processor time that following a grammar may cost at any point, and…"""
TOKEN_SECONDS = 0.02
"""…for each token beside that: a grammar that costs more would hold up everyone's next token."""


class Guides:
    """Makes guides for one base's tokenizer. Used on the event loop alone."""

    def __init__(self, tokenizer: Tokenizer, vocabulary: int) -> None:
        self._source = tokenizer
        self._vocabulary = vocabulary
        self._tokenizer: LLTokenizer | None = None
        self._compiled: OrderedDict[str, LLMatcher] = OrderedDict()
        self._one = asyncio.Lock()

    async def guide(self, grammar: str) -> Guide:
        """A guide at the grammar's beginning. Compiles in a worker thread what is not known yet.

        Raises `UnsupportedRequestError` where that fails. No bound but llguidance's own holds here: whoever
        takes grammars from clients tries them first, as `server.grammar.service` does.
        """
        async with self._one:
            matcher = self._compiled.get(grammar)
            if matcher is None:
                try:
                    matcher = await asyncio.to_thread(self._compile, grammar)
                except GrammarRefusedError as error:
                    raise UnsupportedRequestError(f"the grammar cannot be used: {error}", FIELD) from error
                self._compiled[grammar] = matcher
            self._compiled.move_to_end(grammar)
            if len(self._compiled) > COMPILED:
                self._compiled.popitem(last=False)
        return Guide(matcher.deep_copy(), self._vocabulary, self._source.vocabulary_size)

    def _compile(self, grammar: str) -> LLMatcher:
        if self._tokenizer is None:
            self._tokenizer = open_tokenizer(self._source)
        return compile_grammar(self._tokenizer, grammar)


class Guide:
    """One sequence's place in its grammar."""

    def __init__(self, matcher: LLMatcher, vocabulary: int, known: int) -> None:
        self._matcher = matcher
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
        self._seconds += time.thread_time() - began
        if self._matcher.is_error():
            reason = complaint(self._matcher.get_error())
            raise UnsupportedRequestError(f"the grammar cannot be followed here: {reason}", FIELD)
        if self._seconds > START_SECONDS + TOKEN_SECONDS * self._tokens:
            raise UnsupportedRequestError("the grammar takes too long to follow; make it simpler", FIELD)
        self._mask[: self._known] = np.unpackbits(bits, bitorder="little", count=self._known).view(np.bool_)
        return self._mask
