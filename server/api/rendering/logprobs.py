"""Log probabilities in the shapes of OpenAI's two endpoints and of vLLM's `prompt_logprobs`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import Any

from server.api.rendering.pieces import JsonItems
from server.request import TokenLogprob
from server.text.tokenizer import Tokenizer

LEAST = -9999.0
"""What stands for minus infinity, which JSON cannot spell; OpenAI's own value."""

SHORT = 1024
"""Short items of an array that are encoded in one step."""


def name_token(token: int, text: str, *, as_ids: bool) -> str:
    """`text`, or vLLM's `token_id:5` where a request asks for that."""
    return f"token_id:{token}" if as_ids else text


def completion_logprobs(
    tokens: Sequence[TokenLogprob],
    tokenizer: Tokenizer,
    offset: int,
    first: int | None = None,
    *,
    as_ids: bool = False,
) -> tuple[dict[str, Any], int]:
    """`{"tokens", "token_logprobs", "top_logprobs", "text_offset"}` and the offset after them, in characters.

    `first` is a prompt's first token, which has no log probability and stands before `tokens`. Special tokens
    are listed, but take no room in the text. `top_logprobs` hold the sampled token too, as OpenAI's do.
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
    """vLLM's: null for the first token, then `{token id: {"logprob", "rank", "decoded_token"}}` for each."""
    yield None
    for item in tokens:
        ranked = [(token, value, rank) for rank, (token, value) in enumerate(item.top, 1)]
        ranked = [row for row in ranked if row[0] != item.token_id]
        # The token of the prompt itself comes first, as in vLLM's.
        yield {
            str(token): {"logprob": finite(value), "rank": rank, "decoded_token": tokenizer.token_text(token)}
            for token, value, rank in [(item.token_id, item.logprob, item.rank), *ranked]
        }


def _likeliest(item: TokenLogprob, tokenizer: Tokenizer, *, as_ids: bool) -> dict[str, float]:
    """The alternatives, best first, and the token itself wherever it stands."""
    values = dict(item.top)
    values.setdefault(item.token_id, item.logprob)
    return {
        name_token(token, tokenizer.token_text(token), as_ids=as_ids): finite(value)
        for token, value in values.items()
    }


def _beginning(token: int, tokenizer: Tokenizer) -> str:
    """What `token` shows where it begins a text, which may lose its leading spaces there."""
    text = tokenizer.first_bytes(token).decode("utf-8", "replace")
    spaces = len(text) - len(text.lstrip(" "))
    return text[min(tokenizer.leading_spaces, spaces) :]


def finite(value: float) -> float:
    """`value`, or `LEAST` for minus infinity."""
    return max(value, LEAST)
