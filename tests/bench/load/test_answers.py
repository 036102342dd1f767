"""Reading an answer: every kind of body that is not what was asked for is a fault."""

from __future__ import annotations

import json

import pytest

from bench.load.answers import AnswerReader, read_voices
from bench.load.records import PlannedRequest

ASKED = PlannedRequest(1, "/v1/chat/completions", {}, "sv", tokens=2)
ROLE = {"choices": [{"delta": {"role": "assistant", "content": ""}}]}
FIRST = {"choices": [{"delta": {"content": "Hej"}}], "model": "sv@v1"}
SECOND = {"choices": [{"delta": {"content": " då"}, "finish_reason": "length"}]}
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2},
    "receipt": {"queue_seconds": 0.25},
}


def stream(*events: object, done: bool = True) -> bytes:
    lines = [f"data: {json.dumps(event, ensure_ascii=False)}\n\n" for event in events]
    return "".join([*lines, "data: [DONE]\n\n" if done else ""]).encode()


def read(body: bytes, step: int = 7) -> tuple[AnswerReader, int]:
    reader = AnswerReader()
    counted = sum(reader.feed(body[at : at + step]) for at in range(0, len(body), step))
    return reader, counted


@pytest.mark.parametrize("step", [1, 7, 10_000])
def test_a_whole_answer_however_it_is_cut(step: int) -> None:
    reader, counted = read(stream(ROLE, FIRST, SECOND, USAGE), step)
    assert (reader.text, counted, reader.check(ASKED)) == ("Hej då", 2, "")
    assert reader.usage is not None
    assert reader.usage.prompt_tokens == 5
    assert reader.receipt is not None
    assert reader.receipt.queue_seconds == 0.25


@pytest.mark.parametrize(
    "body",
    [
        stream(FIRST, SECOND, USAGE, done=False),
        stream(FIRST, SECOND),
        stream(FIRST, SECOND, USAGE | {"usage": {"prompt_tokens": 5, "completion_tokens": 1}}),
        stream(FIRST, USAGE),
        stream(FIRST, {"error": {"message": "engine died"}}, SECOND, USAGE),
        stream(FIRST, SECOND, USAGE).replace(b'"Hej"', b'"Hej'),
    ],
    ids=["no end", "no usage", "too few tokens", "no finish", "error in the stream", "not JSON"],
)
def test_an_answer_that_is_not_whole_is_a_fault(body: bytes) -> None:
    assert read(body)[0].check(ASKED)


def test_completions_of_text_are_read_too() -> None:
    reader, counted = read(
        stream({"choices": [{"text": "a"}]}, {"choices": [{"text": "b", "finish_reason": "length"}]}, USAGE)
    )
    assert (reader.text, counted, reader.check(ASKED)) == ("ab", 2, "")


EMPTY = {"delta": {"content": ""}}


@pytest.mark.parametrize(
    ("choice", "counted"),
    [
        ({"delta": {"content": "a"}}, 1),
        (EMPTY, 0),
        (EMPTY | {"finish_reason": "length"}, 0),
        ({"text": ""}, 0),
        ({"delta": {}, "finish_reason": "stop"}, 0),
        ({"delta": {"tool_calls": [{"index": 0, "function": {"arguments": "{"}}]}}, 1),
    ],
    ids=["text", "special token", "special token at the end", "completion", "end alone", "tool call"],
)
def test_only_what_a_reader_sees_counts_as_an_arrival(choice: object, counted: int) -> None:
    assert read(stream({"choices": [choice]}))[1] == counted


@pytest.mark.parametrize(
    ("text", "right"), [('{"title": 1}', True), ('{"other": 1}', False), ("{", False), ("[1]", False)]
)
def test_a_structured_answer_is_an_object_with_its_keys(text: str, right: bool) -> None:
    asked = PlannedRequest(1, "/", {}, "sv", check="json", keys=("title",))
    event = {"choices": [{"delta": {"content": text}, "finish_reason": "stop"}]}
    assert (read(stream(event, USAGE))[0].check(asked) == "") is right


def test_every_voice_has_to_answer_in_full() -> None:
    asked = PlannedRequest(1, "/", {}, "voices", tokens=2, check="voices")
    voice = {
        "model": "sv",
        "status": "answered",
        "text": "a b",
        "error": None,
        "tokens": {"prompt": 3, "completion": 2},
    }

    def judge(*voices: object) -> tuple[int, int, str]:
        usage, words, fault = read_voices(json.dumps({"voices": voices}).encode(), asked)
        return usage.completion_tokens, words, fault

    assert judge(voice, voice) == (4, 4, "")
    assert judge(voice, voice | {"tokens": {"prompt": 3, "completion": 1}})[2]
    assert judge(voice, voice | {"status": "failed", "text": None, "tokens": None})[2]
    assert read_voices(b"{}", asked)[2]
