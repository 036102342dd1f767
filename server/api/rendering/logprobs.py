"""Renders log probabilities in the formats of OpenAI's text completions and of vLLM's `prompt_logprobs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from server.api.rendering.pieces import JsonItems
from server.request import TokenLogprob
from server.text.tokenizer import Tokenizer

LEAST = -9999.0
"""OpenAI's value for a log probability of minus infinity, which JSON cannot represent."""

SHORT = 1024
"""Number of short array items (such as numbers) that are encoded in one step."""


def name_token(token: int, text: str, *, as_ids: bool) -> str:
    """Return `text`; with `as_ids`, the token's id in vLLM's form, such as `token_id:5`."""
    return f"token_id:{token}" if as_ids else text


def completion_logprobs(
    tokens: Sequence[TokenLogprob],
    tokenizer: Tokenizer,
    offset: int,
    first: int | None = None,
    *,
    as_ids: bool = False,
) -> tuple[dict[str, Any], int]:
    """Return a text completion's `logprobs`, and the character offset after its last token.

    The object has `tokens`, `token_logprobs`, `top_logprobs` and `text_offset`. `first` is a prompt's first
    token, which comes before `tokens` and has no log probability. Special tokens are listed, but have no
    length in the text. `top_logprobs` includes the sampled token, as in OpenAI's API.
    """
    texts: list[str] = []
    offsets: list[int] = []
    begins = first is not None
    for token in ([] if first is None else [first]) + [item.token_id for item in tokens]:
        special = token in tokenizer.special_ids
        text = tokenizer.token_text(token)
        if begins and not special:
            text, begins = _beginning(token, tokenizer), False
        texts.append(name_token(token, text, as_ids=as_ids))
        offsets.append(offset)
        offset += 0 if special else len(text)
    unscored: list[None] = [] if first is None else [None]
    values = unscored + [finite(item.logprob) for item in tokens]
    tops = chain(unscored, (_likeliest(item, tokenizer, as_ids=as_ids) for item in tokens))
    shape = {
        "tokens": JsonItems(texts, SHORT),
        "token_logprobs": JsonItems(values, SHORT),
        "top_logprobs": JsonItems(tops),
        "text_offset": JsonItems(offsets, SHORT),
    }
    return shape, offset


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
    """
    values = dict(item.top)
    values.setdefault(item.token_id, item.logprob)
    return {
        name_token(token, tokenizer.token_text(token), as_ids=as_ids): finite(value)
        for token, value in values.items()
    }


def _beginning(token: int, tokenizer: Tokenizer) -> str:
    """Return the text of `token` at the beginning of a text, where the tokenizer may drop leading spaces."""
    text = tokenizer.first_bytes(token).decode("utf-8", "replace")
    spaces = len(text) - len(text.lstrip(" "))
    return text[min(tokenizer.leading_spaces, spaces) :]


def finite(value: float) -> float:
    """Return a log probability, or `LEAST` instead of minus infinity."""
    return max(value, LEAST)
