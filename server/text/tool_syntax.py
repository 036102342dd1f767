"""The events that report text and tool calls in an answer, and the control tokens that mark calls.
`tool_parser` does the parsing.
"""

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
"""Maps each control token of tool calls to the Unicode noncharacter that stands for it in an answer's text;
see `Sampling.marks`.
"""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""Pattern of a tool's name, as OpenAI's API allows it."""
ID = re.compile("[a-zA-Z0-9]{9}")
"""Pattern of a tool call's id, as Mistral's chat templates require it."""
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class TextDelta:
    """Event: a part of the answer's text that belongs to no tool call."""

    text: str


@dataclass(frozen=True, slots=True)
class CallStart:
    """Event: a tool call begins. `index` counts the calls of an answer from 0."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ArgumentsDelta:
    """Event: a further part of a tool call's arguments. All parts joined are exactly what the model wrote."""

    index: int
    text: str


CallEvent = TextDelta | CallStart | ArgumentsDelta


@dataclass(frozen=True, slots=True)
class ParsedAnswer:
    """A whole answer: its text, and its tool calls with their arguments as text."""

    text: str
    calls: tuple[tuple[CallStart, str], ...]


def new_call_id() -> str:
    """Return a new id for a tool call: nine random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def join_text(events: Iterable[CallEvent]) -> list[CallEvent]:
    """Join neighbouring text events, and neighbouring argument events of the same tool call."""
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
    """Combine the events of one answer into its text and its tool calls."""
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
