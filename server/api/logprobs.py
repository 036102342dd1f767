"""Log probabilities in the shapes of OpenAI's two endpoints and of vLLM's `prompt_logprobs`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from server.request import TokenLogprob
from server.tokens import Tokenizer

LEAST = -9999.0
"""What stands for minus infinity, which JSON cannot spell; OpenAI's own value."""


def chat_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> dict[str, Any]:
    """`{"content": [{"token", "logprob", "bytes", "top_logprobs"}], "refusal": null}`."""
    content = [
        _entry(item.token_id, item.logprob, tokenizer)
        | {"top_logprobs": [_entry(token, value, tokenizer) for token, value in item.top]}
        for item in tokens
    ]
    return {"content": content, "refusal": None}


def completion_logprobs(
    tokens: Sequence[TokenLogprob], tokenizer: Tokenizer, offset: int, first: int | None = None
) -> tuple[dict[str, Any], int]:
    """`{"tokens", "token_logprobs", "top_logprobs", "text_offset"}` and the offset after them, in characters.

    `first` is a prompt's first token, which has no log probability and stands before `tokens`.
    """
    texts: list[str] = []
    values: list[float | None] = []
    tops: list[dict[str, float] | None] = []
    offsets: list[int] = []
    for item in ([None] if first is not None else []) + list(tokens):
        token = first if item is None else item.token_id
        text = tokenizer.token_text(token or 0)
        texts.append(text)
        offsets.append(offset)
        values.append(None if item is None else finite(item.logprob))
        tops.append(None if item is None else {tokenizer.token_text(t): finite(v) for t, v in item.top})
        offset += len(text)
    shape = {"tokens": texts, "token_logprobs": values, "top_logprobs": tops, "text_offset": offsets}
    return shape, offset


def prompt_logprobs(tokens: Sequence[TokenLogprob], tokenizer: Tokenizer) -> list[dict[str, Any] | None]:
    """vLLM's: null for the first token, then for each one `{token id: {"logprob", "decoded_token"}}`."""
    entries: list[dict[str, Any] | None] = [None]
    for item in tokens:
        candidates = dict(item.top) | {item.token_id: item.logprob}
        entries.append(
            {
                str(token): {"logprob": finite(value), "decoded_token": tokenizer.token_text(token)}
                for token, value in candidates.items()
            }
        )
    return entries


def finite(value: float) -> float:
    """`value`, or `LEAST` for minus infinity."""
    return max(value, LEAST)


def _entry(token: int, logprob: float, tokenizer: Tokenizer) -> dict[str, Any]:
    return {
        "token": tokenizer.token_text(token),
        "logprob": finite(logprob),
        "bytes": list(tokenizer.token_bytes(token)),
    }
