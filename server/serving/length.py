"""Computes how long an answer may be, from the request and the model's context."""

from __future__ import annotations

from dataclasses import dataclass, replace

from server.errors import bad_field, context_exceeded
from server.metrics.engine_state import EngineInfo
from server.request import Sampling


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """The requested length of an answer."""

    asked: int | None
    """Requested number of tokens. None: `default`, else as many as fit."""
    default: int | None
    fields: tuple[str, str]
    """The request's names for the prompt and for the length."""

    def fit(self, sampling: Sampling, prompt: int, info: EngineInfo) -> Sampling:
        """Return `sampling` for an answer to `prompt` tokens. Raises `ApiError` if the lengths do not fit."""
        return of_length(sampling, answer_length(self.asked, self.default, prompt, info, self.fields))


def of_length(sampling: Sampling, length: int) -> Sampling:
    """Return `sampling` with at most `length` tokens. Raises `ApiError` if `min_tokens` is larger."""
    if sampling.min_tokens > length:
        message = f"min_tokens is {sampling.min_tokens}, but the answer can have at most {length} tokens."
        raise bad_field("min_tokens", message, code="invalid_value")
    return replace(sampling, max_tokens=length)


def answer_length(
    asked: int | None, default: int | None, prompt: int, info: EngineInfo, fields: tuple[str, str]
) -> int:
    """Return how many tokens may follow `prompt` tokens: the requested number, else `default`, else all that
    fit.

    `fields` are the request's names for the prompt and for the length. Raises `ApiError` with both numbers
    if the two do not fit the context.
    """
    room = info.context - prompt
    least = 1 if asked is None else asked
    if least <= room:
        return asked if asked is not None else room if default is None else min(default, room)
    raise context_exceeded(fields[0] if room <= 0 else fields[1], info.context, prompt, asked)
