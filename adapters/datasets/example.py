"""One example of a data set: a conversation, read from either of two shapes of JSON.

`{"instruction", "input", "output"}`, where `input` may be empty or absent, is one question and its answer.
`{"messages": [{"role", "content"}, …]}` is a chat: a system message if there is one, then questions and
answers in turn, an answer last. Both may carry the notes `id`, `source` and `language`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters import names
from adapters.errors import FileRefusedError, format_value
from adapters.files.jsonfile import parse_object

Role = Literal["system", "user", "assistant"]
INSTRUCTION_FIELDS = ("instruction", "input", "output")
NOTES = ("id", "source", "language")
"""Fields that either shape may have beside its own; `language` says what the answers are in."""
MAX_MESSAGES = 1024

_MESSAGE_FIELDS = frozenset({"role", "content"})


class ExampleError(ValueError):
    """A line is no example. `kind` is `json` where it is no JSON object, else `fields`."""

    def __init__(self, kind: Literal["json", "fields"], reason: str) -> None:
        self.kind: Literal["json", "fields"] = kind
        super().__init__(reason)


class _LineError(FileRefusedError):
    """What `parse_object` raises here; never seen outside."""


@dataclass(frozen=True, slots=True)
class ExampleMessage:
    """One turn of a conversation."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One conversation. It ends with an answer."""

    messages: tuple[ExampleMessage, ...]
    language: str | None = None
    """What the line itself says that its answers are in."""

    @property
    def answer(self) -> str:
        """All that the assistant says, a line for each answer."""
        return self._said_by("assistant")

    @property
    def prompt(self) -> str:
        """All that is said to the assistant, the system message included."""
        return self._said_by("system", "user")

    def _said_by(self, *roles: Role) -> str:
        return "\n".join(message.content for message in self.messages if message.role in roles)


def read_example(data: bytes, path: Path) -> Example:
    """The example in one line of `path`. Raises `ExampleError`, which names the field."""
    try:
        fields = parse_object(data, path, _LineError)
    except _LineError as problem:
        raise ExampleError("json", problem.reason) from None
    chat = "messages" in fields
    known = {*NOTES, *(("messages",) if chat else INSTRUCTION_FIELDS)}
    if unknown := [name for name in fields if name not in known]:
        both = chat and unknown[0] in INSTRUCTION_FIELDS
        reason = "stands beside messages: a line has one shape or the other" if both else "is unknown"
        raise _wrong(format_value(unknown[0]), reason)
    for name in ("id", "source"):
        if isinstance(fields.get(name), dict | list):
            raise _wrong(name, "is neither text nor a number")
    messages = _chat(fields["messages"]) if chat else _instruction(fields)
    return Example(messages, _language(fields.get("language")))


def _wrong(field: str, reason: str) -> ExampleError:
    return ExampleError("fields", f"{field} {reason}")


def _text(fields: Mapping[str, Any], name: str, field: str) -> str:
    if name not in fields:
        raise _wrong(field, "is missing")
    value = fields[name]
    if not isinstance(value, str):
        raise _wrong(field, f"is not text: {format_value(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(field, "holds half of a surrogate pair, which is no character") from None
    return value


def _filled(fields: Mapping[str, Any], name: str, field: str) -> str:
    value = _text(fields, name, field)
    if not value.strip():
        raise _wrong(field, "is empty")
    return value


def _instruction(fields: Mapping[str, Any]) -> tuple[ExampleMessage, ...]:
    asked = _filled(fields, "instruction", "instruction")
    about = _text(fields, "input", "input") if "input" in fields else ""
    answer = _filled(fields, "output", "output")
    return ExampleMessage("user", f"{asked}\n{about}" if about.strip() else asked), ExampleMessage(
        "assistant", answer
    )


def _chat(value: object) -> tuple[ExampleMessage, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong("messages", "is not a list of at least one message")
    if len(value) > MAX_MESSAGES:
        raise _wrong("messages", f"has {len(value)} entries, and {MAX_MESSAGES} are the most")
    found = tuple(_message(item, f"messages[{index}]") for index, item in enumerate(value))
    first = 1 if found[0].role == "system" else 0
    for index, message in enumerate(found[first:], first):
        expected = "assistant" if (index - first) % 2 else "user"
        if message.role != expected:
            raise _wrong(f"messages[{index}].role", f"is {message.role}, and {expected} comes here")
    if found[-1].role != "assistant":
        raise _wrong("messages", "does not end with an answer (assistant)")
    return found


def _message(value: object, field: str) -> ExampleMessage:
    if not isinstance(value, dict):
        raise _wrong(field, f"is not an object: {format_value(value)}")
    fields: Mapping[str, Any] = value
    if unknown := [name for name in fields if name not in _MESSAGE_FIELDS]:
        raise _wrong(f"{field}.{unknown[0][:64]}", "is unknown: a message has role and content")
    role = _text(fields, "role", f"{field}.role")
    if role != "system" and role != "user" and role != "assistant":
        raise _wrong(f"{field}.role", f"is {format_value(role)}: use system, user or assistant")
    return ExampleMessage(role, _filled(fields, "content", f"{field}.content"))


def _language(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong("language", f"is not text: {format_value(value)}")
    try:
        return names.language(value)
    except ValueError as problem:
        raise _wrong("language", str(problem)) from None
