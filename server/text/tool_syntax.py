"""The tool calls of an answer, and the control tokens that write them. Reading is `call_reader`'s."""

from __future__ import annotations

import itertools
import re
import secrets
import string
from collections.abc import Iterable
from dataclasses import dataclass

TOOL_CALLS, ARGS, CALL_ID = "[TOOL_CALLS]", "[ARGS]", "[CALL_ID]"
MARKS = {TOOL_CALLS: "\ufdd2", ARGS: "\ufdd3", CALL_ID: "\ufdd4"}
"""Control token → the noncharacter that stands for it in an answer's text; see `Sampling.marks`."""

NAME = re.compile(r"[a-zA-Z0-9_-]{1,64}")
"""A tool's name, as OpenAI has it."""
ID = re.compile("[a-zA-Z0-9]{9}")
"""A call's id, as Mistral's chat templates demand it."""
_LETTERS = string.ascii_letters + string.digits


@dataclass(frozen=True, slots=True)
class Said:
    """Text that belongs to no call."""

    text: str


@dataclass(frozen=True, slots=True)
class Called:
    """A call begins: the `index`th of its answer."""

    index: int
    id: str
    name: str


@dataclass(frozen=True, slots=True)
class Argued:
    """A call's arguments grew. Joined, the texts are just what the model wrote."""

    index: int
    text: str


Event = Said | Called | Argued


@dataclass(frozen=True, slots=True)
class Read:
    """A whole answer: its text, and its calls with their arguments as text."""

    text: str
    calls: tuple[tuple[Called, str], ...]


def new_call_id() -> str:
    """Nine random letters and digits."""
    return "".join(secrets.choice(_LETTERS) for _ in range(9))


def merged(events: Iterable[Event]) -> list[Event]:
    """The same with neighbours of one kind joined."""
    result: list[Event] = []
    for (kind, index), group in itertools.groupby(events, _kind):
        if kind is Said:
            result.append(Said("".join([event.text for event in group if isinstance(event, Said)])))
        elif kind is Argued:
            texts = [event.text for event in group if isinstance(event, Argued)]
            result.append(Argued(index, "".join(texts)))
        else:
            result += group
    return result


def whole(events: Iterable[Event]) -> Read:
    """What the events of one answer come to."""
    texts: list[str] = []
    heads: list[Called] = []
    arguments: list[list[str]] = []
    for event in events:
        match event:
            case Said(text):
                texts.append(text)
            case Called():
                heads.append(event)
                arguments.append([])
            case Argued(index, text):
                arguments[index].append(text)
    calls = [(head, "".join(parts)) for head, parts in zip(heads, arguments, strict=True)]
    return Read("".join(texts), tuple(calls))


def _kind(event: Event) -> tuple[type[Event], int]:
    return type(event), -1 if isinstance(event, Said) else event.index
