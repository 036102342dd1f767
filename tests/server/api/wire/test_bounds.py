"""A field is counted before it is decoded, and too much of it is refused by its name."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.fields import bounds
from server.api.fields.decode import to_generation
from server.api.fields.generation import ChatFields
from server.api.wire import body as module
from server.api.wire import counting
from server.api.wire.body import parse_body
from server.api.wire.bounds import MAX_FIELDS, SMALL, FieldBound
from server.api.wire.counting import JsonCounts, count_at_most, count_values
from server.errors import ApiError, ErrorReply

MIB = 1024 * 1024
JSON = st.recursive(
    st.none() | st.integers() | st.text(st.sampled_from('a"\\,[]{}å\n'), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4),
    max_leaves=30,
)


def counted(value: object) -> tuple[int, int]:
    """Containers and strings of a value."""
    if isinstance(value, dict):
        inside = [counted(item) for item in value.values()]  # pyright: ignore[reportUnknownVariableType]
        return 1 + sum(c for c, _ in inside), len(value) + sum(s for _, s in inside)  # pyright: ignore
    if isinstance(value, list):
        inside = [counted(item) for item in value]  # pyright: ignore[reportUnknownVariableType]
        return 1 + sum(c for c, _ in inside), sum(s for _, s in inside)
    return 0, int(isinstance(value, str))


@given(JSON, st.integers(1, 9), st.sampled_from([None, 1]))
def test_counts_are_those_of_the_decoded_value(value: object, cut: int, indent: int | None) -> None:
    """However strings and escapes fall between slices."""
    text = json.dumps(value, indent=indent).encode()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(counting, "SLICE", cut)
        exact = count_values(text)
    quick = count_at_most(text)
    assert (exact.containers, exact.strings) == counted(value)
    assert quick.containers >= exact.containers
    assert quick.strings >= exact.strings
    assert quick.members >= exact.members
    if isinstance(value, dict | list) and value:
        assert exact.members == len(value)  # pyright: ignore[reportUnknownArgumentType]


@given(st.binary(min_size=1, max_size=60))
def test_any_bytes_can_be_counted(text: bytes) -> None:
    assert isinstance(count_values(text), JsonCounts)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ("[" + "{}," * 5 + "{}]", "objects"),
        ('["", "", "", "", ""]', "strings"),
        ("[1, 2, 3, 4, 5, 6]", "values"),
    ],
)
def test_each_kind_of_value_has_a_bound(text: str, what: str) -> None:
    bound = FieldBound(containers=4, strings=4, values=6)
    small = FieldBound(containers=7, strings=5, values=20)
    spaces = " " * 5000
    assert small.excess((text + spaces).encode()) is None
    excess = bound.excess((text + spaces).encode())
    assert excess is not None
    assert what in excess[0]


def test_signs_inside_of_a_text_do_not_count() -> None:
    text = json.dumps("{[," * 100_000 + '\\"' * 50_000).encode()
    FieldBound(containers=0, strings=1, values=2).check("prompt", text)


def refusal(body: bytes, limits: Mapping[str, FieldBound]) -> ErrorReply:
    with pytest.raises(ApiError) as error:
        parse_body(body, limits)
    return error.value.reply


SHAPES = {"objects": "{}", "arrays": "[]", "texts": '""', "numbers": "0"}
ENDPOINTS = {
    "chat": bounds.CHAT,
    "completion": bounds.COMPLETION,
    "response": bounds.RESPONSE,
    "embedding": bounds.EMBEDDING,
    "tokenize": bounds.TOKENIZE,
    "legacy": bounds.LEGACY,
}
FIELDS = [(kind, field) for kind, limits in ENDPOINTS.items() for field in limits]


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("kind", "field"), FIELDS)
def test_no_field_of_small_elements_is_decoded(
    kind: str, field: str, shape: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded: list[int] = []
    decode = msgspec.json.decode

    def watched(text: bytes) -> Any:
        decoded.append(len(text))
        return decode(text)

    monkeypatch.setattr(module.msgspec.json, "decode", watched)
    element = SHAPES[shape]
    many = ",".join([element] * (4 * MIB // (len(element) + 1) - 16))
    reply = refusal(f'{{"{field}":[{many}]}}'.encode(), ENDPOINTS[kind])
    assert (reply.status, reply.code, reply.param) == (400, "field_too_large", field)
    assert any(character.isdigit() for character in reply.message)
    assert decoded == []


def test_a_field_without_a_bound_is_left_undecoded_for_its_name_to_be_refused() -> None:
    value = parse_body(b'{"odd":[' + b"{}," * 50_000 + b"{}]}", bounds.CHAT)
    assert isinstance(value["odd"], msgspec.Raw)
    assert SMALL.excess(value["odd"])


def test_counting_stops_at_the_limit() -> None:
    text = b"[" + b"{}," * MIB + b"{}]"
    limits = JsonCounts(1000, 1000, 1000, 1000)
    assert 1000 < count_values(text, limits).containers < MIB
    assert count_values(text).containers == MIB + 2


def test_a_small_field_that_is_large_is_named() -> None:
    value = parse_body(json.dumps({"messages": [], "model": "x" * 20_000}).encode(), bounds.CHAT)
    with pytest.raises(ApiError) as error:
        to_generation(value, ChatFields)
    assert (error.value.reply.code, error.value.reply.param) == ("field_too_large", "model")


def test_a_body_of_many_fields_is_refused_before_any_is_found() -> None:
    keys = ",".join(f'"{number}":0' for number in range(300_000))
    reply = refusal(f"{{{keys}}}".encode(), bounds.CHAT)
    assert (reply.status, reply.code) == (400, "field_too_large")
    assert str(MAX_FIELDS) in reply.message


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("chat", {"messages": [{"role": "user", "content": "a, {b} [c]" * 100_000}]}),
        ("chat", {"messages": [{"role": "user", "content": [{"type": "text", "text": "a"}] * 8}] * 1024}),
        ("chat", {"logit_bias": {str(token): -100 for token in range(1024)}}),
        ("chat", {"stop": ["😀" * 256] * 16, "metadata": {str(n) * 30: "å" * 512 for n in range(16)}}),
        ("chat", {"tools": [{"type": "function", "function": {"name": "f" * 64, "description": "d" * 4096,
                  "parameters": {"properties": {str(n): {"type": "string"} for n in range(60)}}}}] * 128}),
        ("chat", {"guided_json": {"properties": {f"name{n}": {"type": "string"} for n in range(4000)}}}),
        ("completion", {"prompt": [list(range(4000))] * 64}),
        ("completion", {"prompt": list(range(131_072))}),
        ("embedding", {"input": ["a text"] * 2048}),
        ("embedding", {"input": [list(range(140))] * 2048}),
        ("tokenize", {"tokens": list(range(131_072))}),
        ("legacy", {"text": "a, " * MIB}),
    ],
)  # fmt: skip
def test_what_clients_send_is_within_the_bounds(kind: str, body: dict[str, Any]) -> None:
    assert parse_body(json.dumps(body).encode(), ENDPOINTS[kind]) == body
