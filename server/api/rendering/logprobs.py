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


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> dict[str, Any]:
    """`{"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}`."""
    return {"content": list(chat_entries(tokens, tokenizer)), "refusal": None}


def chat_entries(tokens: Iterable[TokenLogprob], tokenizer: Tokenizer) -> Iterator[dict[str, Any]]:
    """The items of `content`."""
    for item in tokens:
        top = [_entry(token, value, tokenizer) for token, value in item.top]
        yield _entry(item.token_id, item.logprob, tokenizer) | {"top_logprobs": top}


def completion_logprobs(
    tokens: Sequence[TokenLogprob], tokenizer: Tokenizer, offset: int, first: int | None = None
) -> tuple[dict[str, Any], int]:
    """`{"tokens", "token_logprobs", "top_logprobs", "text_offset"}` and the offset after them, in characters.

    `first` is a prompt's first token, which has no log probability and stands before `tokens`. Special tokens
    are listed, but take no room in the text.
    """
    texts: list[str] = []
    offsets: list[int] = []
    begins = first is not None
    for token in ([] if first is None else [first]) + [item.token_id for item in tokens]:
        special = token in tokenizer.special_ids
        text = tokenizer.token_text(token)
        if begins and not special:
            text, begins = _beginning(token, tokenizer), False
        texts.append(text)
        offsets.append(offset)
        offset += 0 if special else len(text)
    unscored: list[None] = [] if first is None else [None]
    values = unscored + [finite(item.logprob) for item in tokens]
    tops = chain(unscored, ({tokenizer.token_text(t): finite(v) for t, v in item.top} for item in tokens))
    shape = {
        "tokens": JsonItems(texts, SHORT),
        "token_logprobs": JsonItems(values, SHORT),
        "top_logprobs": JsonItems(tops),
        "text_offset": JsonItems(offsets, SHORT),
    }
    return shape, offset


def prompt_logprobs(tokens: Iterable[TokenLogprob], tokenizer: Tokenizer) -> Iterator[dict[str, Any] | None]:
    """vLLM's: null for the first token, then for each one `{token id: {"logprob", "decoded_token"}}`."""
    yield None
    for item in tokens:
        candidates = dict(item.top) | {item.token_id: item.logprob}
        yield {
            str(token): {"logprob": finite(value), "decoded_token": tokenizer.token_text(token)}
            for token, value in candidates.items()
        }


def _beginning(token: int, tokenizer: Tokenizer) -> str:
    """What `token` shows where it begins a text, which may lose its leading spaces there."""
    text = tokenizer.first_bytes(token).decode("utf-8", "replace")
    spaces = len(text) - len(text.lstrip(" "))
    return text[min(tokenizer.leading_spaces, spaces) :]


def finite(value: float) -> float:
    """`value`, or `LEAST` for minus infinity."""
    return max(value, LEAST)


def _entry(token: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "token": tokenizer.token_text(token),
        "logprob": finite(logprob),
        "bytes": list(tokenizer.token_bytes(token)),
    }
