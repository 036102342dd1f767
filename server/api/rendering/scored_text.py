"""Pairs tokens and their log probabilities with text and bytes that add up to the answer."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import msgspec

from server.api.rendering.logprobs import finite, name_token
from server.request import TokenLogprob
from server.text.detokenizer import TextStream
from server.text.tokenizer import Tokenizer


class _Named(msgspec.Struct):
    """A token with the text and bytes that it adds to the answer."""

    scored: TokenLogprob
    text: str
    shown: bytes


class ScoredText:
    """Writes OpenAI's `logprobs.content` of one choice, as far as the choice's text has arrived.

    If a character is split over several tokens, each token has its own bytes, and the last token has the
    text. A token that shows nothing, such as an end token, has neither text nor bytes. Text that a stop
    string cuts off is cut from the tokens too, so an entry waits until its text has arrived. If `joins` is
    false, the tokens need not add up to the text: entries come at once and uncut.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        before: Sequence[int] = (),
        *,
        joins: bool = True,
        as_ids: bool = False,
    ) -> None:
        """Prepare for an answer that continues the text of the tokens `before`; empty for a new text."""
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer, prompt=before)
        self._begun = bool(before) and before[-1] not in tokenizer.special_ids
        self._joins = joins
        self._as_ids = as_ids
        self._room = 0
        self._waiting: deque[_Named] = deque()

    def entries(self, tokens: Iterable[TokenLogprob], text: str, *, last: bool) -> Iterator[dict[str, Any]]:
        """Add tokens and text, and yield an entry for each token that the text covers.

        With `last`, all remaining tokens are yielded. An entry has `token`, `logprob`, `bytes` and
        `top_logprobs`.
        """
        self._room += len(text)
        for scored in tokens:
            if last:  # only the last token may get the rest of the text
                yield from self._covered()
            self._waiting.append(self._name(scored))
        if not last:
            yield from self._covered()
            return
        if self._waiting:
            self._waiting[-1].text += self._stream.finish()
        while self._waiting:
            yield self._entry(self._cut(self._waiting.popleft()))

    def _covered(self) -> Iterator[dict[str, Any]]:
        """Yield entries of waiting tokens, up to the last token whose complete text has arrived."""
        ready = taken = 0
        for place, named in enumerate(self._waiting, 1):
            if self._joins and taken + len(named.text) > self._room:
                break
            taken += len(named.text)
            if named.text or not named.shown:
                ready = place
        for _ in range(ready):
            named = self._waiting.popleft()
            self._room -= len(named.text)
            yield self._entry(named)

    def _cut(self, named: _Named) -> _Named:
        if self._joins and len(named.text) > self._room:
            named.text = named.text[: self._room]
            named.shown = named.text.encode()
        self._room -= len(named.text)
        return named

    def _name(self, scored: TokenLogprob) -> _Named:
        token = scored.token_id
        text, _ = self._stream.push(token)
        if token in self._tokenizer.special_ids:
            return _Named(scored, text, b"")
        if self._begun:
            return _Named(scored, text, self._tokenizer.token_bytes(token))
        # Leading spaces may be dropped at the beginning of the text.
        self._begun = bool(text)
        raw, shown = self._tokenizer.first_bytes(token), text.encode()
        spaces = not raw.removesuffix(shown).strip(b" ") and raw.endswith(shown)
        return _Named(scored, text, shown if spaces else raw)

    def _entry(self, named: _Named) -> dict[str, Any]:
        scored = named.scored
        own = name_token(scored.token_id, named.text, as_ids=self._as_ids), list(named.shown)
        top = [
            {"token": own[0], "logprob": finite(value), "bytes": own[1]}
            if token == scored.token_id
            else self._alternative(token, value)
            for token, value in scored.top
        ]
        return {"token": own[0], "logprob": finite(scored.logprob), "bytes": own[1], "top_logprobs": top}

    def _alternative(self, token: int, value: float) -> dict[str, Any]:
        name = name_token(token, self._tokenizer.token_text(token), as_ids=self._as_ids)
        return {"token": name, "logprob": finite(value), "bytes": list(self._tokenizer.token_bytes(token))}
