"""Computes how long an answer may be, from the request and the model's context."""

from __future__ import annotations

from dataclasses import dataclass, replace

from server.errors import bad_field, context_exceeded
from server.metrics.engine_state import EngineInfo
from server.request import Sampling


@dataclass(frozen=True, slots=True)
class AnswerLength:
    """The requested length of an answer, and the default length."""

    asked: int | None
    """Requested number of tokens. None: the length in `default`, or, if that is None too, as many tokens as
    fit the context.
    """
    default: int | None
    fields: tuple[str, str]
    """Names of the request's fields for the prompt and for the length, for error messages."""

    def fit(self, sampling: Sampling, prompt: int, info: EngineInfo) -> Sampling:
        """Return `sampling` limited to the length of an answer to a prompt of `prompt` tokens. Raises
        `ApiError` if the two do not fit the context.
        """
        return of_length(sampling, answer_length(self.asked, self.default, prompt, info, self.fields))


def of_length(sampling: Sampling, length: int) -> Sampling:
    """Return `sampling` limited to `length` tokens. Raises `ApiError` if `min_tokens` is larger."""
    if sampling.min_tokens > length:
        raise bad_field(
            "min_tokens",
            f"min_tokens is {sampling.min_tokens}, but the answer can have at most {length} tokens; lower "
            "min_tokens.",
            code="invalid_value",
        )
    return replace(sampling, max_tokens=length)


def answer_length(
    asked: int | None, default: int | None, prompt: int, info: EngineInfo, fields: tuple[str, str]
) -> int:
    """Return how many tokens may follow a prompt of `prompt` tokens: the requested number, else `default`,
    else all that fit the context.

    `fields` are the request's names for the prompt and for the length. Raises `ApiError` with both numbers if
    the prompt and the requested length do not fit the context.
    """
    room = info.context - prompt
    least = 1 if asked is None else asked
    if least <= room:
        return asked if asked is not None else room if default is None else min(default, room)
    raise context_exceeded(fields[0] if room <= 0 else fields[1], info.context, prompt, asked)
