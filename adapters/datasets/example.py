"""Read one example of a data set from a line of JSON: a conversation in any of four formats.

- `{"instruction", "input", "output"}` is one question and its answer; `input` may be empty or absent.
- `{"prompt", "completion"}` is one question and its answer, or two lists of messages.
- `{"messages": [{"role", "content"}, …]}` is a chat: an optional system message, then alternating user and
  assistant messages, ending with an assistant message.
- `{"conversations": [{"from", "value"}, …]}` (ShareGPT) is a chat as well; its system message may be in the
  field `system` instead.

A line of any format may also have the fields `id`, `source` and `language`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from adapters import names
from adapters.errors import FileRefusedError, format_value
from adapters.files.jsonfile import parse_object

Role = Literal["system", "user", "assistant"]
SHAPES: Mapping[str, tuple[str, ...]] = {
    "messages": ("messages",),
    "conversations": ("conversations", "system"),
    "prompt": ("prompt", "completion"),
    "instruction": ("instruction", "input", "output"),
}
"""The example formats: maps the field that identifies a format to all fields of that format."""
NOTES = ("id", "source", "language")
"""Fields that an example of any format may have. `language` is the language of the answers."""
KNOWN_FIELDS = "; ".join(" and ".join(fields) for fields in reversed(SHAPES.values())) + (
    f"; and {', '.join(NOTES)} in every format"
)
"""A list of the fields of every example format, for use in error messages."""
MAX_MESSAGES = 1024

_SPEAKERS: Mapping[str, Role] = {
    "system": "system",
    "user": "user",
    "human": "user",
    "assistant": "assistant",
    "gpt": "assistant",
    "chatgpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
}
"""Maps the speaker names in ShareGPT files to the roles of OpenAI's API."""


class ExampleError(ValueError):
    """A line of a data set is not a valid example. `kind` is `json` if the line is not a JSON object, else
    `fields`.
    """

    def __init__(self, kind: Literal["json", "fields"], reason: str) -> None:
        self.kind: Literal["json", "fields"] = kind
        super().__init__(reason)


class _LineError(FileRefusedError):
    """The error class that this module passes to `parse_object`. `read_example` turns it into `ExampleError`,
    so callers never see it.
    """


@dataclass(frozen=True, slots=True)
class ExampleMessage:
    """One message of a conversation: who speaks (`role`) and the text (`content`)."""

    role: Role
    content: str


@dataclass(frozen=True, slots=True)
class Example:
    """One example of a data set: a conversation whose last message is an answer by the assistant."""

    messages: tuple[ExampleMessage, ...]
    language: str | None = None
    """Language of the answers, from the line's `language` field. None if the line does not have that field.
    """

    @property
    def answer(self) -> str:
        """The text of all assistant messages, joined by newlines."""
        return self._said_by("assistant")

    @property
    def prompt(self) -> str:
        """The text of all system and user messages, joined by newlines."""
        return self._said_by("system", "user")

    def _said_by(self, *roles: Role) -> str:
        return "\n".join(message.content for message in self.messages if message.role in roles)


def read_example(data: bytes, path: Path) -> Example:
    """Read the example in `data`, one line of the file `path`. Raises `ExampleError` that names the wrong
    field.
    """
    try:
        fields = parse_object(data, path, _LineError)
    except _LineError as problem:
        raise ExampleError("json", problem.reason) from None
    shape = next((name for name in SHAPES if name in fields), "instruction")
    known = {*NOTES, *SHAPES[shape]}
    if unknown := [name for name in fields if name not in known]:
        raise _unknown(unknown[0], shape)
    for name in ("id", "source"):
        if isinstance(fields.get(name), dict | list):
            raise _wrong(name, "the value is a list or an object; give text or a number")
    messages = _READERS[shape](fields)
    return Example(messages, _language(fields.get("language")))


def _wrong(field: str, reason: str) -> ExampleError:
    return ExampleError("fields", f"{field} {reason}")


def _unknown(name: str, shape: str) -> ExampleError:
    """Return the error for a field that does not belong to the line's example format."""
    others = {field for fields in SHAPES.values() for field in fields}
    if name in others and shape != "instruction":
        return _wrong(
            format_value(name), f"cannot be combined with {shape}; use the fields of one format in a line"
        )
    return _wrong(format_value(name), f"is an unknown field; the known fields are {KNOWN_FIELDS}")


def _text(fields: Mapping[str, Any], name: str, field: str) -> str:
    if name not in fields:
        raise _wrong(field, "is missing")
    value = fields[name]
    if not isinstance(value, str):
        raise _wrong(field, f"is not text: {format_value(value)}")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise _wrong(
            field, "holds an unpaired UTF-16 surrogate such as \\ud800; replace it with a whole character"
        ) from None
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


def _prompt(fields: Mapping[str, Any]) -> tuple[ExampleMessage, ...]:
    """Read an example in TRL's format: `prompt` and `completion` are both text, or both lists of messages
    that form one chat.
    """
    asked, said = fields["prompt"], fields.get("completion")
    if not isinstance(asked, list) and not isinstance(said, list):
        return (
            ExampleMessage("user", _filled(fields, "prompt", "prompt")),
            ExampleMessage("assistant", _filled(fields, "completion", "completion")),
        )
    for name, value in (("prompt", asked), ("completion", said)):
        if not isinstance(value, list):
            raise _wrong(
                name, "must be a list of messages: prompt and completion must both be texts or both be lists"
            )
    pieces: list[Any] = [*asked, *(said or ())]
    places = [f"prompt[{n}]" for n in range(len(asked))]
    places += [f"completion[{n}]" for n in range(len(pieces) - len(asked))]
    return _turns(pieces, "completion", places, ("role", "content"))


def _chat(fields: Mapping[str, Any]) -> tuple[ExampleMessage, ...]:
    return _turns(fields["messages"], "messages", (), ("role", "content"))


def _sharegpt(fields: Mapping[str, Any]) -> tuple[ExampleMessage, ...]:
    found = _turns(fields["conversations"], "conversations", (), ("from", "value"))
    if not fields.get("system"):
        return found
    if found[0].role == "system":
        raise _wrong(
            "system", "repeats the system message that is already in conversations; keep only one of the two"
        )
    return ExampleMessage("system", _filled(fields, "system", "system")), *found


def _turns(
    value: object, field: str, places: Sequence[str], keys: tuple[str, str]
) -> tuple[ExampleMessage, ...]:
    if not isinstance(value, list) or not value:
        raise _wrong(field, "must be a list of messages with at least one message")
    if len(value) > MAX_MESSAGES:
        raise _wrong(field, f"has {len(value)} messages; the limit for one conversation is {MAX_MESSAGES}")
    places = places or [f"{field}[{index}]" for index in range(len(value))]
    found = tuple(_message(item, place, keys) for item, place in zip(value, places, strict=True))
    first = 1 if found[0].role == "system" else 0
    for index, message in enumerate(found[first:], first):
        expected = "assistant" if (index - first) % 2 else "user"
        if message.role != expected:
            raise _wrong(
                f"{places[index]}.{keys[0]}",
                f"is {message.role}, but must be {expected}: user and assistant messages alternate",
            )
    if found[-1].role != "assistant":
        raise _wrong(field, "does not end with an answer; the last message must be the assistant's")
    return found


def _message(value: object, field: str, keys: tuple[str, str]) -> ExampleMessage:
    who, what = keys
    if not isinstance(value, dict):
        raise _wrong(field, f"must be a message, that is a JSON object, but is {format_value(value)}")
    fields: Mapping[str, Any] = value
    if unknown := [name for name in fields if name not in keys]:
        raise _wrong(
            f"{field}.{unknown[0][:64]}", f"is unknown; a message has only the fields {who} and {what}"
        )
    said = _text(fields, who, f"{field}.{who}")
    role = said if who == "role" else _SPEAKERS.get(said)
    if role != "system" and role != "user" and role != "assistant":
        names = "system, user or assistant" if who == "role" else "system, human or gpt"
        raise _wrong(f"{field}.{who}", f"is {format_value(said)}: use {names}")
    return ExampleMessage(role, _filled(fields, what, f"{field}.{what}"))


_READERS: Mapping[str, Callable[[Mapping[str, Any]], tuple[ExampleMessage, ...]]] = {
    "messages": _chat,
    "conversations": _sharegpt,
    "prompt": _prompt,
    "instruction": _instruction,
}


def _language(value: object) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str):
        raise _wrong("language", f"is not text: {format_value(value)}")
    try:
        return names.language(value)
    except ValueError as problem:
        raise _wrong("language", str(problem)) from None
