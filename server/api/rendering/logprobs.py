"""Renders log probabilities in the formats of OpenAI's text completions and of vLLM's `prompt_logprobs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from server.api.rendering.pieces import JsonItems
from server.request import TokenLogprob
from server.text.detokenizer import TextStream
from server.text.tokenizer import Tokenizer

LEAST = -9999.0
"""OpenAI's value for a log probability of minus infinity, which JSON cannot represent."""

SHORT = 1024
"""Number of short array items (such as numbers) that are encoded in one step."""


def name_token(token: int, text: str, *, as_ids: bool) -> str:
    """Return `text`; with `as_ids`, the token's id in vLLM's form, such as `token_id:5`."""
    return f"token_id:{token}" if as_ids else text


class TextOffsets:
    """Finds at which character of a text each of its tokens begins.

    If a character is split over several tokens, all of them begin where the character does. Special tokens
    have no length in the text. `before` holds the tokens that the text continues; empty for a text that
    begins with its own first token.
    """

    def __init__(self, tokenizer: Tokenizer, before: Sequence[int] = ()) -> None:
        self._tokenizer = tokenizer
        self._stream = TextStream(tokenizer, prompt=before)
        self._end = 0

    def add(self, token: int) -> int:
        """Add the text's next token. Returns the offset in characters at which it begins."""
        begin, (text, _) = self._end, self._stream.push(token)
        self._end += len(text)
        if text.startswith("\ufffd"):
            # Earlier tokens were no character, and their mark comes with this token.
            own = self._tokenizer.token_text(token)
            begin += len(text) - len(own) if text.endswith(own) else 0
        return begin


def completion_logprobs(
    tokens: Sequence[TokenLogprob],
    tokenizer: Tokenizer,
    offsets: TextOffsets,
    first: int | None = None,
    *,
    as_ids: bool = False,
) -> dict[str, Any]:
    """Return a text completion's `logprobs`.

    The object has `tokens`, `token_logprobs`, `top_logprobs` and `text_offset`. `first` is a prompt's first
    token, which comes before `tokens` and has no log probability. `offsets` has got the text's earlier
    tokens, and gets these. `top_logprobs` includes the sampled token, as in OpenAI's API.
    """
    texts: list[str] = []
    begin_at: list[int] = []
    begins = first is not None
    for token in ([] if first is None else [first]) + [item.token_id for item in tokens]:
        special = token in tokenizer.special_ids
        text = tokenizer.token_text(token)
        if begins and not special:
            text, begins = _beginning(token, tokenizer), False
        texts.append(name_token(token, text, as_ids=as_ids))
        begin_at.append(offsets.add(token))
    unscored: list[None] = [] if first is None else [None]
    values = unscored + [finite(item.logprob) for item in tokens]
    tops = chain(unscored, (_likeliest(item, tokenizer, as_ids=as_ids) for item in tokens))
    return {
        "tokens": JsonItems(texts, SHORT),
        "token_logprobs": JsonItems(values, SHORT),
        "top_logprobs": JsonItems(tops),
        "text_offset": JsonItems(begin_at, SHORT),
    }


def prompt_logprobs(tokens: Iterable[TokenLogprob], tokenizer: Tokenizer) -> Iterator[dict[str, Any] | None]:
    """Yield the items of vLLM's `prompt_logprobs`.

    The first item is None, since the first token has no log probability. Each further item is `{token id:
    {"logprob", "rank", "decoded_token"}}`.
    """
    yield None
    for item in tokens:
        ranked = [(token, value, rank) for rank, (token, value) in enumerate(item.top, 1)]
        ranked = [row for row in ranked if row[0] != item.token_id]
        # The prompt's own token comes first, as in vLLM.
        yield {
            str(token): {"logprob": finite(value), "rank": rank, "decoded_token": tokenizer.token_text(token)}
            for token, value, rank in [(item.token_id, item.logprob, item.rank), *ranked]
        }


def _likeliest(item: TokenLogprob, tokenizer: Tokenizer, *, as_ids: bool) -> dict[str, float]:
    """Return the likeliest tokens at one position of a text, with their log probabilities, best first. The
    text's own token at this position is included, whatever its rank.

    Of several tokens with the same text, such as parts of characters, the text's own token is listed, else
    the likeliest.
    """
    values = dict(item.top)
    values.setdefault(item.token_id, item.logprob)
    found: dict[str, float] = {}
    for token, value in values.items():
        name = name_token(token, tokenizer.token_text(token), as_ids=as_ids)
        if name not in found or token == item.token_id:
            found[name] = finite(value)
    return found


def _beginning(token: int, tokenizer: Tokenizer) -> str:
    """Return the text of `token` at the beginning of a text, where the tokenizer may drop leading spaces."""
    text = tokenizer.first_bytes(token).decode("utf-8", "replace")
    spaces = len(text) - len(text.lstrip(" "))
    return text[min(tokenizer.leading_spaces, spaces) :]


def finite(value: float) -> float:
    """Return a log probability, or `LEAST` instead of minus infinity."""
    return max(value, LEAST)
