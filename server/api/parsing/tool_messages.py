"""Parses tool calls in a conversation, and the tool messages that answer them."""

from __future__ import annotations

import hashlib
import string
from collections.abc import Mapping, Sequence
from typing import Any, cast

import msgspec

from server.api.fields.unknown import UnknownFields
from server.errors import ApiError, bad_field
from server.text.tool_syntax import ID, NAME

MAX_CALLS = 128
MAX_ID = 256
MAX_DEPTH = 64
"""Maximum number of nested levels in a tool call's arguments and in a tool's parameters."""

_DIGITS = string.digits + string.ascii_letters
_CALL_FIELDS = frozenset({"id", "type", "function", "index"})
_FUNCTION_FIELDS = frozenset({"name", "arguments"})


class OpenCalls:
    """The tool calls of the last assistant message that no tool message has answered yet."""

    def __init__(self) -> None:
        self._names: dict[str, str] = {}
        self._path = ""

    def open(self, calls: Sequence[Mapping[str, Any]], path: str) -> None:
        """Add the tool calls of one message. Raises `ApiError` if two calls have the same id."""
        self._path = path
        for index, call in enumerate(calls):
            if call["id"] in self._names:
                raise _wrong(
                    f"{path}[{index}].id",
                    "another tool call of the message has the same id; give each call its own id",
                )
            self._names[call["id"]] = call["function"]["name"]

    def answer(self, call_id: str, path: str) -> str:
        """Mark a tool call as answered, and return its tool's name. Raises `ApiError` if no unanswered call
        has the id.
        """
        if call_id not in self._names:
            raise _wrong(
                path,
                "the previous assistant message has no unanswered tool call with this id; use its calls' ids",
            )
        return self._names.pop(call_id)

    def check_answered(self) -> None:
        """Raise `ApiError` if a tool call has no answer."""
        if self._names:
            raise _wrong(
                self._path,
                f"{len(self._names)} tool calls of this assistant message have no answer; "
                "add a tool message for each call right after the message",
            )


def read_calls(value: object, path: str, unknown: UnknownFields) -> list[dict[str, Any]]:
    """Convert OpenAI's `tool_calls` to the form of Hugging Face's chat templates, with each call's arguments
    as an object.
    """
    if not isinstance(value, list):
        raise _wrong(path, "tool_calls must be an array of tool calls", "invalid_type")
    calls = cast("list[object]", value)
    if len(calls) > MAX_CALLS:
        raise _wrong(
            path, f"the message has {len(calls)} tool calls; the maximum is {MAX_CALLS}, so send fewer"
        )
    return [_call(call, f"{path}[{index}]", unknown) for index, call in enumerate(calls)]


def read_call_id(value: object, path: str) -> str:
    """Return a tool call's id in the form that chat templates require: nine letters and digits. An id in
    another form is replaced by a hash.

    The hash of an id is always the same, so that a conversation's prompt does not change.
    """
    if value is None:
        raise bad_field(path, f"{path} is required.", code="missing_required_parameter")
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID:
        raise _wrong(path, f"the call's id must be a string of 1 to {MAX_ID} characters", "invalid_type")
    if ID.fullmatch(value):
        return value
    number = int.from_bytes(hashlib.sha256(value.encode()).digest())
    return "".join(_DIGITS[number // 62**place % 62] for place in range(9))


def check_depth(value: object, path: str) -> None:
    """Raise `ApiError` for a JSON value that is nested deeper than `MAX_DEPTH` levels."""
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return
        inner: list[object] = []
        for item in level:
            inner += item.values() if isinstance(item, dict) else item
        level = _containers(inner)
    if not level:
        return
    raise _wrong(path, f"the value is nested deeper than {MAX_DEPTH} levels; flatten it")


def _containers(items: list[object]) -> list[dict[str, object] | list[object]]:
    return [cast("dict[str, object] | list[object]", item) for item in items if isinstance(item, dict | list)]


def _call(value: object, path: str, unknown: UnknownFields) -> dict[str, Any]:
    call = _object(value, path, _CALL_FIELDS, unknown)
    if call.get("type") not in (None, "function"):
        raise _wrong(f"{path}.type", 'the type of a tool call must be "function"')
    function = _object(call.get("function"), f"{path}.function", _FUNCTION_FIELDS, unknown)
    name = function.get("name")
    if not isinstance(name, str) or not NAME.fullmatch(name):
        raise _wrong(f"{path}.function.name", "the tool's name must be 1 to 64 letters, digits, - and _")
    arguments = _arguments(function.get("arguments"), f"{path}.function.arguments")
    return {
        "id": read_call_id(call.get("id"), f"{path}.id"),
        "type": "function",
        "function": {"name": name, "arguments": arguments},
    }


def _arguments(value: object, path: str) -> object:
    """Return the object in the JSON of a tool call's arguments; the text itself if the model wrote no JSON
    object.
    """
    if not isinstance(value, str):
        raise _wrong(path, "the arguments of a tool call must be a string of JSON", "invalid_type")
    if not value.strip():
        return {}
    try:
        arguments: object = msgspec.json.decode(value.encode())
    except RecursionError:
        raise _wrong(path, f"the arguments are nested deeper than {MAX_DEPTH} levels; flatten them") from None
    except (ValueError, msgspec.DecodeError):
        return value
    check_depth(arguments, path)
    return cast(object, arguments) if isinstance(arguments, dict) else value


def _object(value: object, path: str, names: frozenset[str], unknown: UnknownFields) -> dict[str, Any]:
    if value is None:
        raise bad_field(path, f"{path} is required.", code="missing_required_parameter")
    if not isinstance(value, dict):
        raise _wrong(path, "this part of the tool call must be a JSON object", "invalid_type")
    fields = cast("dict[str, Any]", value)
    for name, item in fields.items():
        if name not in names and item is not None:
            unknown.meet(name, names, path)
    return fields


def _wrong(path: str, reason: str, code: str = "invalid_value") -> ApiError:
    return bad_field(path, f"{path}: {reason}.", code=code)
