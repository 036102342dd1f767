"""Calls are read the same however their text is cut, and nothing of a text is lost."""

from __future__ import annotations

import json
from collections.abc import Iterable
from itertools import count, pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.text.tool_formats import FORMATS, HERMES, JSON, LLAMA3, MISTRAL, ToolFormat
from server.text.tool_parser import CallReader
from server.text.tool_syntax import (
    ID,
    MARKS,
    NAME,
    ArgumentsDelta,
    CallEvent,
    CallStart,
    TextDelta,
    new_call_id,
    whole,
)

BEGIN, ARGS, CALL_ID = (MARKS[token] for token in ("[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"))
SPELLED = {ord(mark): token for token, mark in MARKS.items()}


def read(
    parts: Iterable[str],
    parallel: bool = True,
    form: ToolFormat = MISTRAL,
    tools: Iterable[str] = ("f", "g"),
) -> list[CallEvent]:
    numbers = count()
    reader = CallReader(form, list(tools), parallel=parallel, new_id=lambda: f"call{next(numbers):05}")
    return [*(event for part in parts for event in reader.push(part)), *reader.finish()]


def calls(text: str, parallel: bool = True, form: ToolFormat = MISTRAL) -> tuple[str, list[tuple[str, str]]]:
    answer = whole(read([text], parallel, form))
    return answer.text, [(call.name, arguments) for call, arguments in answer.calls]


TEXT = st.text(st.characters(codec="utf-8", exclude_characters=list(MARKS.values())), max_size=8)
"""What a model's own text can hold: never a mark."""
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
ARGUMENTS = st.dictionaries(TEXT, VALUES, max_size=3)
NAMES = st.text("abcXYZ019_-", min_size=1, max_size=64)
CALLS = st.lists(st.tuples(NAMES, ARGUMENTS), min_size=1, max_size=4)
INDENTS = st.sampled_from([None, 0, 2])


def array(wanted: list[tuple[str, dict[str, object]]], indent: int | None, reverse: bool) -> str:
    items = [{"name": name, "arguments": arguments} for name, arguments in wanted]
    if reverse:
        items = [dict(reversed(item.items())) for item in items]
    return BEGIN + " " + json.dumps(items, ensure_ascii=False, indent=indent)


def named(wanted: list[tuple[str, dict[str, object]]], indent: int | None, marked: bool) -> str:
    return "".join(
        BEGIN + name + (ARGS if marked else "") + json.dumps(arguments, ensure_ascii=False, indent=indent)
        for name, arguments in wanted
    )


@given(TEXT, CALLS, INDENTS, st.booleans(), st.booleans())
def test_what_a_model_writes_is_read(
    prose: str, wanted: list[tuple[str, dict[str, object]]], indent: int | None, other: bool, as_array: bool
) -> None:
    write = array if as_array else named
    said, found = calls(prose + write(wanted, indent, other) + "\n")
    assert said == (prose if prose.strip() else "")
    assert [(name, json.loads(arguments)) for name, arguments in found] == wanted


PIECES = st.sampled_from(
    [
        *(BEGIN, ARGS, CALL_ID, "[", "]", "{", "}", ",", ":", " ", "\n", '"', "\\", "7", "null", "ö"),
        *('"name"', '"arguments"', '{"name": "f", "arguments": ', '{"a": "\\"}"}', "abcdefgh1"),
        *("<tool_call>", "</tool_call>", "<|python_tag|>", "<", ";", *MARKS.values()),
        *(
            '{"name": "g", "parameters": {"b": [1, "x;"]}}',
            '{"type": "function", "name": "f", "parameters": ',
        ),
    ]
)
SOUP = st.lists(PIECES | NAMES, max_size=30).map("".join)


FORMS = st.sampled_from(list(FORMATS.values()))


@given(SOUP, st.data(), st.booleans(), FORMS)
def test_any_cut_gives_the_same(text: str, data: st.DataObject, parallel: bool, form: ToolFormat) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=len(text))))
    borders = [0, *cuts, len(text)]
    parts = [text[a:b] for a, b in pairwise(borders)]
    once = whole(read([text], parallel, form))
    assert whole(read(parts, parallel, form)) == once == whole(read(text, parallel, form))


@given(SOUP, FORMS)
def test_events_are_in_order_and_nothing_is_lost(text: str, form: ToolFormat) -> None:
    open_call = -1
    for event in read(text, form=form):
        match event:
            case CallStart(index, call_id, name):
                assert index == open_call + 1
                assert ID.fullmatch(call_id)
                assert NAME.fullmatch(name)
                open_call = index
            case ArgumentsDelta(index, part):
                assert index == open_call
                assert part
            case TextDelta(part):
                assert part
    answer = whole(read(text, form=form))
    if not answer.calls:
        assert answer.text == text.translate(SPELLED)
    assert len({call.id for call, _ in answer.calls}) == len(answer.calls)


@given(SOUP, FORMS)
def test_one_call_is_the_first_of_several(text: str, form: ToolFormat) -> None:
    one, several = whole(read([text], parallel=False, form=form)), whole(read([text], form=form))
    assert one.calls == several.calls[:1]
    assert one.text == several.text


def test_arguments_come_as_they_are_written() -> None:
    text = BEGIN + ' [{"name": "f", "arguments": {"a": "b"}}]'
    begun = text.index('{"a"')
    reader = CallReader()
    assert not reader.push(text[:begun])
    first = reader.push(text[begun : begun + 3])
    assert isinstance(first[0], CallStart)
    assert first[1:] == [ArgumentsDelta(0, '{"a')]
    assert reader.push('": ') == [ArgumentsDelta(0, '": ')]
    assert reader.push('"b"}}]') == [ArgumentsDelta(0, '"b"}')]
    assert not reader.finish()


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        ("plain", "plain", []),
        ("  \n", "  \n", []),
        ("", "", []),
        ("[TOOL_CALLS]f{}", "[TOOL_CALLS]f{}", []),
        (f" Sure.\n{BEGIN}f{ARGS}{{}}", " Sure.\n", [("f", "{}")]),
        (f" \n{BEGIN}f{ARGS}{{}} \n{BEGIN}g{{}}\n", "", [("f", "{}"), ("g", "{}")]),
        (f"{BEGIN}f{CALL_ID}abc{ARGS} {{}}", "", [("f", "{}")]),
        (f"{BEGIN}f{ARGS}{{}} and so on", " and so on", [("f", "{}")]),
        (f'{BEGIN}{{"name": "f", "arguments": {{}}}}', "", [("f", "{}")]),
        (f'{BEGIN}[{{"name": "f"}}]', "", [("f", "{}")]),
        (f'{BEGIN}[{{"name": "f", "arguments": null}}]', "", [("f", "{}")]),
        (f'{BEGIN}[{{"name": "f", "arguments": "{{\\"a\\": 1}}"}}]', "", [("f", '{"a": 1}')]),
        (f'{BEGIN}[{{"arguments": "\\ud800", "name": "f"}}]', "", [("f", "\ufffd")]),
        (f'{BEGIN}[{{"name": "f", "arguments": {{}}, "id": [1, "]"]}}]', "", [("f", "{}")]),
        # Cut short: the arguments as far as they came, or the text.
        (f'{BEGIN}[{{"name": "f", "arguments": {{"a": "b', "", [("f", '{"a": "b')]),
        (f'{BEGIN}[{{"name": "f", "argum', '[TOOL_CALLS][{"name": "f", "argum', []),
        (f"{BEGIN}f{ARGS}", "[TOOL_CALLS]f[ARGS]", []),
        (f'{BEGIN}f{{"a{BEGIN}g{{}}', "", [("f", '{"a'), ("g", "{}")]),
        (f'{BEGIN}[{{"name": "f", "arguments": {{}}}}, {{"na', ' {"na', [("f", "{}")]),
        # No calls at all.
        (f"{BEGIN}", "[TOOL_CALLS]", []),
        (f"{BEGIN}[]", "[TOOL_CALLS][]", []),
        (f"{BEGIN}[3] x", "[TOOL_CALLS][3] x", []),
        (f"{BEGIN}f(1)", "[TOOL_CALLS]f(1)", []),
        (f"{BEGIN}{'x' * 65}{{}}", f"[TOOL_CALLS]{'x' * 65}{{}}", []),
        (f'{BEGIN}[{{"name": "a b", "more": {{}}}}]', '[TOOL_CALLS][{"name": "a b", "more": {}}]', []),
        (f'{BEGIN}[{{"name": "f", "arguments": 3}}]', '[TOOL_CALLS][{"name": "f", "arguments": 3}]', []),
        (f'{BEGIN}[{{"arguments": {{}}}}]', '[TOOL_CALLS][{"arguments": {}}]', []),
        (f"{BEGIN}no{BEGIN}f{{}}", "[TOOL_CALLS]no", [("f", "{}")]),
        (f"a{ARGS}b", "a[ARGS]b", []),
    ],
)  # fmt: skip
def test_edges(text: str, said: str, found: list[tuple[str, str]]) -> None:
    assert calls(text) == (said, found)


def test_an_id_of_the_model_is_kept_once() -> None:
    text = f"{BEGIN}f{CALL_ID}abcdefgh1{ARGS}{{}}" * 2
    assert [call.id for call, _ in whole(read([text])).calls] == ["abcdefgh1", "call00000"]


def test_new_ids_differ() -> None:
    ids = {new_call_id() for _ in range(100)}
    assert len(ids) == 100
    assert all(ID.fullmatch(call_id) for call_id in ids)


@given(st.sampled_from([HERMES, LLAMA3, JSON]), CALLS, st.sampled_from(["", "Sure.\n", " \n"]))
def test_what_a_format_writes_is_read(
    form: ToolFormat, wanted: list[tuple[str, dict[str, object]]], prose: str
) -> None:
    text = form.write([{"function": {"name": name, "arguments": given}} for name, given in wanted])
    prose = prose if form is not JSON else prose.lstrip("Sure.")
    answer = whole(read(prose + text + "\n", form=form, tools=[name for name, _ in wanted]))
    assert answer.text == (prose if prose.strip() else "")
    assert [(call.name, json.loads(given)) for call, given in answer.calls] == wanted


OPEN, CLOSE, TAG = (MARKS[token] for token in ("<tool_call>", "</tool_call>", "<|python_tag|>"))
F = '{"name": "f", "arguments": {"a": "<tool_call>"}}'
P = '{"name": "f", "parameters": {}}'
ARGUED = [("f", '{"a": "<tool_call>"}')]


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        (f"<tool_call>\n{F}\n</tool_call>", "", ARGUED),
        (f"{OPEN}{F}{CLOSE}\n{OPEN}{F}{CLOSE}", "", ARGUED * 2),
        (f"I look. <tool_call>{F}</tool_call> Done", "I look.  Done", ARGUED),
        ('<tool_call>{"arguments": {}, "name": "f"}</tool_call>', "", [("f", "{}")]),
        ('<tool_call>{"name": "f"}</tool_call>', "", [("f", "{}")]),
        # Cut short, or not closed.
        (f"<tool_call>{F}", "", ARGUED),
        ('<tool_call>{"name": "f", "arguments": {"a', "", [("f", '{"a')]),
        (f"<tool_call>{F}\n<tool_call>{F}</tool_call>", "", ARGUED * 2),
        (f"{OPEN}{F}{OPEN}{F}", "", ARGUED * 2),
        (f"<tool_call>{F}<b>", "<b>", ARGUED),
        # No calls at all.
        ("a <b> < c <tool_cal", "a <b> < c <tool_cal", []),
        ("<tool_call>f(1)</tool_call>", "<tool_call>f(1)</tool_call>", []),
        ('<tool_call>{"name": 3}</tool_call>', '<tool_call>{"name": 3}</tool_call>', []),
        (f"<<tool_call>{F}", "<", ARGUED),
        (F, F, []),
        (f"{CLOSE}x", "</tool_call>x", []),
    ],
)  # fmt: skip
def test_hermes(text: str, said: str, found: list[tuple[str, str]]) -> None:
    assert calls(text, form=HERMES) == (said, found)


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        (P, "", [("f", "{}")]),
        (f"{TAG}{P}", "", [("f", "{}")]),
        (f"<|python_tag|> {P}; {P}", "", [("f", "{}")] * 2),
        (f"I look.\n{P}", "I look.\n", [("f", "{}")]),
        (f"{P};\n", "", [("f", "{}")]),
        (f"{P}; and", "; and", [("f", "{}")]),
        ('{"type": "function", "name": "g", "parameters": {"b": 1}}', "", [("g", '{"b": 1}')]),
        ('{"parameters": {}, "name": "g"}', "", [("g", "{}")]),
        (f'{TAG}{{"name": "other", "parameters": {{}}}}', "", [("other", "{}")]),
        # No calls at all.
        ('{"name": "other", "parameters": {}}', '{"name": "other", "parameters": {}}', []),
        ('{"name": "f"}', '{"name": "f"}', []),
        ('{"degrees": 3, "name": "f"}', '{"degrees": 3, "name": "f"}', []),
        ('f(x) { return "a"; }', 'f(x) { return "a"; }', []),
        (f'{TAG}f.call(a="b")', '<|python_tag|>f.call(a="b")', []),
        ("a < b {", "a < b {", []),
    ],
)  # fmt: skip
def test_llama(text: str, said: str, found: list[tuple[str, str]]) -> None:
    assert calls(text, form=LLAMA3) == (said, found)


@pytest.mark.parametrize(
    ("text", "said", "found"),
    [
        (f" [{F}, {P}]", "", [*ARGUED, ("f", "{}")]),
        ("[1, 2] x", "[1, 2] x", []),
        (f"x [{F}]", f"x [{F}]", []),
        (f'[{F}, {{"name": "g", "argum', ' {"name": "g", "argum', ARGUED),
    ],
)  # fmt: skip
def test_an_array_alone(text: str, said: str, found: list[tuple[str, str]]) -> None:
    assert calls(text, form=JSON) == (said, found)
