"""How long an answer may be beside its prompt in the context."""

from __future__ import annotations

import pytest

from server.errors import ApiError
from server.metrics.engine_state import EngineInfo
from server.request import Sampling
from server.serving.length import AnswerLength, answer_length

INFO = EngineInfo(
    name="embedded", base_digest="sha256:0", context=100, vocabulary=50, blends=True, max_adapters=4
)


def test_answer_length() -> None:
    fields = ("messages", "max_tokens")
    assert answer_length(10, 5, 90, INFO, fields) == 10
    assert answer_length(None, 5, 90, INFO, fields) == 5
    assert answer_length(None, 50, 90, INFO, fields) == 10
    assert answer_length(None, None, 90, INFO, fields) == 10
    assert answer_length(0, None, 100, INFO, fields) == 0


@pytest.mark.parametrize(
    ("asked", "prompt", "param"),
    [(11, 90, "max_tokens"), (1, 100, "messages"), (None, 100, "messages"), (0, 101, "messages")],
)
def test_what_does_not_fit_the_context_is_told_with_both_numbers(
    asked: int | None, prompt: int, param: str
) -> None:
    with pytest.raises(ApiError) as error:
        answer_length(asked, None, prompt, INFO, ("messages", "max_tokens"))
    reply = error.value.reply
    assert (reply.param, reply.code) == (param, "context_length_exceeded")
    assert "100" in reply.message
    assert str(prompt) in reply.message


def test_a_length_is_fitted_to_the_prompt() -> None:
    length = AnswerLength(None, 20, ("messages", "max_tokens"))
    assert length.fit(Sampling(max_tokens=0), 70, INFO).max_tokens == 20
    assert length.fit(Sampling(max_tokens=0), 90, INFO).max_tokens == 10
    with pytest.raises(ApiError) as error:
        length.fit(Sampling(max_tokens=0, min_tokens=11), 90, INFO)
    assert error.value.reply.param == "min_tokens"
