"""What is an example and what is not, in both shapes; and lines of any length."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.datasets.example import ExampleError, ExampleMessage, read_example
from adapters.datasets.lines import iterate_lines, line_at

FILE = Path("data.jsonl")


def read(value: Any) -> tuple[ExampleMessage, ...]:
    return read_example(json.dumps(value).encode(), FILE).messages


def turn(role: str, content: Any = "x") -> dict[str, Any]:
    return {"role": role, "content": content}


def test_both_shapes_give_the_same_example() -> None:
    wanted = (ExampleMessage("user", "Översätt:\nHej"), ExampleMessage("assistant", "Hi"))
    assert read({"instruction": "Översätt:", "input": "Hej", "output": "Hi"}) == wanted
    assert read({"messages": [turn("user", "Översätt:\nHej"), turn("assistant", "Hi")]}) == wanted


def test_prompts_with_completions_and_sharegpt_are_read() -> None:
    wanted = (ExampleMessage("user", "Hej"), ExampleMessage("assistant", "Hi"))
    assert read({"prompt": "Hej", "completion": "Hi"}) == wanted
    assert read({"prompt": [turn("user", "Hej")], "completion": [turn("assistant", "Hi")]}) == wanted
    talk = [{"from": "human", "value": "Hej"}, {"from": "gpt", "value": "Hi"}]
    assert read({"conversations": talk, "id": 3}) == wanted
    system = ExampleMessage("system", "Kort.")
    assert read({"conversations": talk, "system": "Kort."}) == (system, *wanted)
    assert read({"conversations": [{"from": "system", "value": "Kort."}, *talk]}) == (system, *wanted)
    assert read(
        {"prompt": [turn("system", "Kort."), turn("user", "Hej")], "completion": [turn("assistant", "Hi")]}
    ) == (
        system,
        *wanted,
    )


def test_an_unknown_field_lists_those_that_are_known() -> None:
    with pytest.raises(ExampleError) as refused:
        read({"text": "a"})
    for name in ("instruction", "output", "prompt", "completion", "messages", "conversations", "language"):
        assert name in str(refused.value)


def test_input_may_be_empty_or_absent() -> None:
    wanted = (ExampleMessage("user", "Vem?"), ExampleMessage("assistant", "Jag."))
    assert read({"instruction": "Vem?", "input": " ", "output": "Jag."}) == wanted
    assert read({"instruction": "Vem?", "output": "Jag."}) == wanted


def test_prompt_and_answer_of_a_longer_chat() -> None:
    chat = [turn("system", "S"), turn("user", "1"), turn("assistant", "2")]
    chat += [turn("user", "3"), turn("assistant", "4")]
    found = read_example(json.dumps({"messages": chat, "language": "SV", "id": 7}).encode(), FILE)
    assert (found.prompt, found.answer, found.language) == ("S\n1\n3", "2\n4", "sv")


@pytest.mark.parametrize(
    ("value", "kind", "reason"),
    [
        (b"{", "json", "JSON"),
        (b"[]", "json", "object"),
        (b'{"output": NaN}', "json", "NaN"),
        (b'{"output": "a", "output": "b"}', "json", "twice"),
        (b'{"output": "\xff"}', "json", "UTF-8"),
        ({"output": "a"}, "fields", "instruction"),
        ({"instruction": "a"}, "fields", "output"),
        ({"instruction": " \n", "output": "a"}, "fields", "instruction"),
        ({"instruction": "a", "output": ""}, "fields", "output"),
        ({"instruction": "a", "output": 3}, "fields", "output"),
        ({"instruction": "a", "input": None, "output": "b"}, "fields", "input"),
        ({"instruction": "a", "output": "b", "text": "c"}, "fields", "'text'"),
        ({"instruction": "a", "output": "\ud83d"}, "json", "half"),
        ({"instruction": "a", "output": "b", "language": "svenska"}, "fields", "language"),
        ({"instruction": "a", "output": "b", "language": 1}, "fields", "language"),
        ({"instruction": "a", "output": "b", "id": []}, "fields", "id"),
        ({"messages": [turn("user")], "output": "b"}, "fields", "output"),
        ({"messages": []}, "fields", "messages"),
        ({"messages": ["hi"]}, "fields", "messages[0]"),
        ({"messages": [turn("tool")]}, "fields", "messages[0].role"),
        ({"messages": [turn("user", "")]}, "fields", "messages[0].content"),
        ({"messages": [{**turn("user"), "name": "a"}]}, "fields", "messages[0].name"),
        ({"messages": [turn("assistant")]}, "fields", "messages[0].role"),
        ({"messages": [turn("user"), turn("user")]}, "fields", "messages[1].role"),
        ({"messages": [turn("user")]}, "fields", "answer"),
        ({"messages": [turn("system")]}, "fields", "answer"),
        ({"messages": [turn("user"), turn("assistant")] * 600}, "fields", "1200"),
        ({"prompt": "a"}, "fields", "completion"),
        ({"prompt": "a", "completion": "b", "output": "c"}, "fields", "prompt"),
        ({"prompt": "a", "completion": [turn("assistant")]}, "fields", "prompt"),
        ({"prompt": [turn("user")]}, "fields", "completion"),
        ({"prompt": [turn("user")], "completion": [turn("user")]}, "fields", "completion[0].role"),
        ({"conversations": [{"from": "tool", "value": "a"}]}, "fields", "conversations[0].from"),
        ({"conversations": [{"role": "user", "content": "a"}]}, "fields", "conversations[0].role"),
        ({"conversations": [{"from": "human", "value": "a"}]}, "fields", "answer"),
    ],
    ids=lambda value: str(value)[:60],  # pyright: ignore[reportUnknownLambdaType]
)
def test_what_is_no_example_is_refused_by_field(value: Any, kind: str, reason: str) -> None:
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    with pytest.raises(ExampleError) as refused:
        read_example(data, FILE)
    assert refused.value.kind == kind
    assert re.search(rf"(?<![\w.]){re.escape(reason)}(?!\w)", str(refused.value))


PIECE = st.binary(max_size=12).map(lambda data: data.replace(b"\n", b" ").replace(b"\r", b" "))


@settings(deadline=None)
@given(pieces=st.lists(PIECE, max_size=8), ends=st.sampled_from([b"\n", b"\r\n"]), closed=st.booleans())
def test_lines_keep_their_numbers_and_places_whatever_their_length(
    pieces: list[bytes], ends: bytes, closed: bool, tmp_path_factory: pytest.TempPathFactory
) -> None:
    path = tmp_path_factory.mktemp("lines") / "data"
    pieces = [b"{}", *pieces]  # no beginning of another file format
    path.write_bytes(ends.join(pieces) + (ends if closed and pieces else b""))
    found = list(iterate_lines(path, limit=6))
    wanted = [(n, piece) for n, piece in enumerate(pieces, 1) if piece.strip() or len(piece) > 6]
    assert [line.number for line in found] == [n for n, _ in wanted]
    with path.open("rb") as file:
        for line, (_, piece) in zip(found, wanted, strict=True):
            assert line.data == (None if len(piece) > 6 else piece)
            assert line_at(file, line.start) == piece
            assert line.end <= path.stat().st_size
