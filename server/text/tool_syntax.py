"""The tool calls of an answer, and the control tokens that write them. Reading is `tool_parser`'s."""

from __future__ import annotations

import itertools
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass

TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
CALL_OPEN, CALL_CLOSE, PYTHON_TAG = "<tool_call>", "</tool_call>", "<|python_tag|>"
MARKS = {
    TOOL_CALLS: "\ufdd2", ARGS: "\ufdd3", CALL_ID: "\ufdd4",
    CALL_OPEN: "\ufdd5", CALL_CLOSE: "\ufdd6", PYTHON_TAG: "\ufdd7",
}  # fmt: skip
"""Control token → the noncharacter that stands for it in an answer's text; see `Sampling.marks`."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""A tool's name, as OpenAI has it."""
ID = re.compile("[a-zA-Z0-9]{9}")
"""A call's id, as Mistral's chat templates demand it."""
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """A call begins: the `index`th of its answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """A call's arguments grew. Joined, the texts are just what the model wrote."""

    index: int
    text: str


CallEvent = TextDelta | CallStart | ArgumentsDelta


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A whole answer: its text, and its calls with their arguments as text."""

    text: str
    calls: tuple[tuple[CallStart, str], ...]


def new_call_id() -> str:
    """Nine random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def join_text(events: Iterable[CallEvent]) -> list[CallEvent]:
    """The same with neighbours of one kind joined."""
    result: list[CallEvent] = []
    for (kind, index), group in itertools.groupby(events, _kind):
        if kind is TextDelta:
            result.append(TextDelta("".join([event.text for event in group if isinstance(event, TextDelta)])))
        elif kind is ArgumentsDelta:
            texts = [event.text for event in group if isinstance(event, ArgumentsDelta)]
            result.append(ArgumentsDelta(index, "".join(texts)))
        else:
            result += group
    return result


def whole(events: Iterable[CallEvent]) -> ParsedAnswer:
    """What the events of one answer come to."""
    texts: list[str] = []
    heads: list[CallStart] = []
    arguments: list[list[str]] = []
    for event in events:
        match event:
            case TextDelta(text):
                texts.append(text)
            case CallStart():
                heads.append(event)
                arguments.append([])
            case ArgumentsDelta(index, text):
                arguments[index].append(text)
    calls = [(head, "".join(parts)) for head, parts in zip(heads, arguments, strict=True)]
    return ParsedAnswer("".join(texts), tuple(calls))


def _kind(event: CallEvent) -> tuple[type[CallEvent], int]:
    return type(event), -1 if isinstance(event, TextDelta) else event.index
