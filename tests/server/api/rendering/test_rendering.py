"""What is sent: frames, log probabilities, usage, errors."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from starlette.exceptions import HTTPException

from adapters.registry.served import UnknownAdapterError
from routing.route import UnknownNameError
from routing.selection import SelectionError
from server.api.rendering.answers import Answer, release, total
from server.api.rendering.error_replies import reply_for
from server.api.rendering.frames import Frames
from server.api.rendering.logprobs import TextOffsets, completion_logprobs, prompt_logprobs
from server.api.rendering.pieces import PIECE, JsonItems, encode_pieces
from server.api.rendering.scored_text import ScoredText
from server.errors import (
    AdapterRefusedError,
    AdapterUnavailableError,
    AdapterUnknownError,
    ApiError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    ErrorReply,
    NoSlotError,
    UnsupportedRequestError,
    bad_field,
)
from server.request import Delta, TokenLogprob, Usage
from server.text.tokenizer import TemplateError, Tokenizer

ENVELOPE = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "created": 5, "model": "a@v1"}
Text = st.text(st.characters(exclude_categories=["Cs"]))


def event(frame: bytes) -> dict[str, Any]:
    assert frame.startswith(b"data: ")
    assert frame.endswith(b"\n\n")
    assert frame.count(b"\n") == 2, "an event is one line"
    return json.loads(frame[6:])


@given(text=Text, index=st.integers(0, 15), usage=st.booleans())
def test_a_chat_frame_is_openais_chunk_whatever_the_text(text: str, index: int, usage: bool) -> None:
    frame = Frames.chat(ENVELOPE, 16, usage=usage).text(index, text)
    choice = {"index": index, "delta": {"content": text}, "logprobs": None, "finish_reason": None}
    assert event(frame) == ENVELOPE | {"choices": [choice]} | ({"usage": None} if usage else {})


@given(text=Text, index=st.integers(0, 15), usage=st.booleans())
def test_a_completion_frame_is_openais_chunk_whatever_the_text(text: str, index: int, usage: bool) -> None:
    frame = Frames.completion(ENVELOPE, 16, usage=usage).text(index, text)
    choice = {"index": index, "text": text, "logprobs": None, "finish_reason": None}
    assert event(frame) == ENVELOPE | {"choices": [choice]} | ({"usage": None} if usage else {})


def test_other_frames() -> None:
    frames = Frames.chat(ENVELOPE, 2, usage=True)
    end = {"delta": {}, "logprobs": None, "finish_reason": "stop"}
    assert event(frames.choice(1, end)) == ENVELOPE | {"choices": [{"index": 1, **end}], "usage": None}
    assert event(frames.usage({"total_tokens": 3})) == ENVELOPE | {
        "choices": [],
        "usage": {"total_tokens": 3},
    }


@given(Text)
def test_an_error_in_mid_stream_is_one_event(text: str) -> None:
    assert event(ErrorReply(500, text, code="x").event()) == {
        "error": {"message": text, "type": "invalid_request_error", "param": None, "code": "x"}
    }


def test_usage_counts_each_prompt_once() -> None:
    usages = [Usage(5, 2, 7), Usage(5, 5, 8), Usage(3, 0, 1), Usage(3, 3, 1)]
    assert total(usages, 2) == {
        "prompt_tokens": 8,
        "completion_tokens": 17,
        "total_tokens": 25,
        "prompt_tokens_details": {"cached_tokens": 2},
    }


def test_an_answer_is_its_deltas() -> None:
    answer = Answer()
    answer.add(Delta("Hej", (1,), (TokenLogprob(1, -0.5),), prompt_logprobs=(TokenLogprob(2, -1.0),)))
    answer.add(Delta("", (2,), (TokenLogprob(2, -0.25),)))
    answer.add(Delta("!", (3,), (TokenLogprob(3, -1.5),), finish_reason="stop", usage=Usage(4, 0, 3)))
    assert (answer.text, answer.finish_reason, answer.usage) == ("Hej!", "stop", Usage(4, 0, 3))
    assert [item.token_id for item in answer.logprobs] == [1, 2, 3]
    assert answer.prompt_logprobs == [TokenLogprob(2, -1.0)]
    assert answer.scored == 4
    release([answer])
    assert (answer.scored, answer.text) == (0, "Hej!")


@pytest.fixture(scope="module")
def tokenizer(tiny_base: Path) -> Tokenizer:
    return Tokenizer.load(tiny_base)


def test_chat_logprobs(tokenizer: Tokenizer) -> None:
    tokens = [TokenLogprob(70, -0.5, ((70, -0.5), (71, -math.inf)))]
    (entry,) = ScoredText(tokenizer).entries(tokens, tokenizer.token_text(70), last=True)
    assert entry["token"] == tokenizer.token_text(70)
    assert bytes(entry["bytes"]) == tokenizer.token_bytes(70)
    assert [top["logprob"] for top in entry["top_logprobs"]] == [-0.5, -9999.0]
    json.loads(msgspec.json.encode(entry))


def test_completion_logprobs_follow_the_text(tokenizer: Tokenizer) -> None:
    text = "Who are you? 5 9"
    ids = tokenizer.encode(text)
    scored = [TokenLogprob(token, -1.0, ((token, -1.0),)) for token in ids[1:]]
    lazy = completion_logprobs(scored, tokenizer, TextOffsets(tokenizer), ids[0])
    shape = json.loads(b"".join(encode_pieces(lazy)))
    assert "".join(shape["tokens"]) == text
    assert shape["token_logprobs"] == [None] + [-1.0] * len(scored)
    assert shape["top_logprobs"][0] is None
    for token, offset in zip(shape["tokens"], shape["text_offset"], strict=True):
        assert text[offset:].startswith(token)


def test_special_tokens_take_no_room_in_the_text(tokenizer: Tokenizer) -> None:
    bos = tokenizer.bos_id
    assert bos is not None
    lazy = completion_logprobs([TokenLogprob(70, -1.0)], tokenizer, TextOffsets(tokenizer), bos)
    shape = json.loads(b"".join(encode_pieces(lazy)))
    assert shape["text_offset"] == [0, 0]


def test_tokens_of_a_split_character_begin_where_it_does(tokenizer: Tokenizer) -> None:
    text = "a \U0001f600 b\U0001f600 c"
    ids = tokenizer.encode_within(text)
    split = [token for token in ids if tokenizer.token_text(token) == "\ufffd"]
    assert len(split) == 8
    lazy = completion_logprobs(
        [TokenLogprob(token, -1.0) for token in ids], tokenizer, TextOffsets(tokenizer, [70])
    )
    shape = json.loads(b"".join(encode_pieces(lazy)))
    for token, offset in zip(shape["tokens"], shape["text_offset"], strict=True):
        assert text[offset:].startswith("\U0001f600" if token == "\ufffd" else token)


def test_a_token_after_half_a_character_begins_after_its_mark(tokenizer: Tokenizer) -> None:
    half = tokenizer.encode_within("\U0001f600")[-4]
    scored = [TokenLogprob(token, -1.0) for token in (half, 70, 71)]
    shape = json.loads(
        b"".join(encode_pieces(completion_logprobs(scored, tokenizer, TextOffsets(tokenizer, [70]))))
    )
    length = len(tokenizer.token_text(70))
    assert shape["text_offset"] == [0, 1, 1 + length]


def test_the_likeliest_tokens_have_their_own_values(tokenizer: Tokenizer) -> None:
    """Parts of characters share one name."""
    one, two = (tokenizer.encode_within(text)[-1] for text in ("\U0001f600", "\U0001f601"))
    assert one != two
    assert tokenizer.token_text(one) == tokenizer.token_text(two) == "\ufffd"
    top = ((one, -0.5), (70, -1.0), (two, -2.0))
    scored = [TokenLogprob(one, -0.5, top), TokenLogprob(two, -2.0, top), TokenLogprob(70, -1.0, top)]
    shape = completion_logprobs(scored, tokenizer, TextOffsets(tokenizer))
    likeliest = json.loads(b"".join(encode_pieces(shape["top_logprobs"])))
    assert [found["\ufffd"] for found in likeliest] == [-0.5, -2.0, -0.5]


def test_prompt_logprobs(tokenizer: Tokenizer) -> None:
    scored = [TokenLogprob(70, -3.0, ((71, -0.5), (72, -1.0)), 9), TokenLogprob(71, -0.5, ((71, -0.5),), 1)]
    shape = list(prompt_logprobs(scored, tokenizer))
    assert shape[0] is None
    assert shape[1] == {
        "70": {"logprob": -3.0, "rank": 9, "decoded_token": tokenizer.token_text(70)},
        "71": {"logprob": -0.5, "rank": 1, "decoded_token": tokenizer.token_text(71)},
        "72": {"logprob": -1.0, "rank": 2, "decoded_token": tokenizer.token_text(72)},
    }
    assert shape[2] == {"71": {"logprob": -0.5, "rank": 1, "decoded_token": tokenizer.token_text(71)}}


def test_the_sampled_token_is_among_the_likeliest_of_a_completion(tokenizer: Tokenizer) -> None:
    scored = [TokenLogprob(70, -3.0, ((71, -0.5),), 9), TokenLogprob(70, -3.0)]
    for as_ids, names in (
        (False, [tokenizer.token_text(71), tokenizer.token_text(70)]),
        (True, ["token_id:71", "token_id:70"]),
    ):
        lazy = completion_logprobs(scored, tokenizer, TextOffsets(tokenizer), as_ids=as_ids)
        shape = json.loads(b"".join(encode_pieces(lazy)))
        assert shape["top_logprobs"] == [{names[0]: -0.5, names[1]: -3.0}, {names[1]: -3.0}]
        assert shape["tokens"] == [names[1]] * 2


def test_a_large_answer_is_encoded_in_pieces() -> None:
    """Items are made as they are encoded, a few at a time."""
    made: list[int] = []

    def items() -> Iterator[dict[str, Any]]:
        for number in range(20_000):
            made.append(number)
            yield {"token": "x" * 20, "number": number}

    value = {
        "id": "a",
        "choices": [{"logprobs": JsonItems(items()), "text": "hej"}, None],
        "none": JsonItems([]),
    }
    pieces = encode_pieces(value)
    first = next(pieces)
    assert PIECE <= len(first) < 2 * PIECE
    assert len(made) < 3000
    whole = json.loads(first + b"".join(pieces))
    assert whole["choices"][0]["logprobs"][-1] == {"token": "x" * 20, "number": 19_999}
    assert whole == {"id": "a", "choices": [whole["choices"][0], None], "none": []}
    assert whole["choices"][0]["text"] == "hej"


@pytest.mark.parametrize(
    ("error", "status", "param", "code"),
    [
        (bad_field("n", "n is 0"), 400, "n", None),
        (EngineBusyError("full", 2.2), 429, None, "queue_full"),
        (EngineDeadError("gone"), 503, None, "engine_dead"),
        (EngineError("odd"), 500, None, "engine_error"),
        (AdapterRefusedError("/home/x/secret"), 503, "model", "adapter_unavailable"),
        (AdapterUnavailableError("zero@v1: gone"), 503, "model", "adapter_unavailable"),
        (AdapterUnknownError("/home/x/secret"), 404, "model", "adapter_not_found"),
        (NoSlotError("/home/x/secret"), 503, "model", "adapter_unavailable"),
        (
            UnsupportedRequestError("no blends", "X-OneSeek-Adapter"),
            400,
            "X-OneSeek-Adapter",
            "unsupported_value",
        ),
        (UnknownNameError("x", "model"), 404, "model", "model_not_found"),
        (UnknownNameError("x", "X-OneSeek-Adapter"), 404, "X-OneSeek-Adapter", "adapter_not_found"),
        (UnknownAdapterError("x"), 404, "model", "adapter_not_found"),
        (SelectionError("a b", "write"), 400, "X-OneSeek-Adapter", "bad_selection"),
        (TemplateError("roles must alternate"), 400, "messages", "bad_conversation"),
        (HTTPException(404), 404, None, "not_found"),
        (HTTPException(405, headers={"Allow": "GET"}), 405, None, "method_not_allowed"),
        (TimeoutError(), 504, None, "timeout"),
        (KeyError("/home/x/secret"), 500, None, "internal_error"),
    ],
)
def test_every_error_has_its_answer(
    error: Exception, status: int, param: str | None, code: str | None
) -> None:
    reply = reply_for(error)
    assert (reply.status, reply.param, reply.code) == (status, param, code)
    detail = json.loads(reply.body())["error"]
    assert set(detail) == {"message", "type", "param", "code"}
    assert "secret" not in detail["message"]


def test_an_error_of_a_new_kind_is_answered_as_the_nearest_known_one() -> None:
    class SlowError(EngineBusyError):
        pass

    reply = reply_for(SlowError("full", 0.1))
    assert (reply.status, reply.headers["Retry-After"]) == (429, "1")
    assert reply_for(EngineBusyError("full", 2.2)).headers["Retry-After"] == "3"


def test_refusals_keep_their_reply() -> None:
    reply = ErrorReply(418, "a teapot")
    assert reply_for(ApiError(reply)) is reply


def test_an_answer_that_took_too_long_is_not_asked_for_again() -> None:
    assert reply_for(TimeoutError()).headers["x-should-retry"] == "false"
