"""Parses OpenAI's messages: roles, content parts and tool calls."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from routing.system import bounded
from server.api.fields.unknown import UnknownFields
from server.api.parsing.parts import TextParts
from server.api.parsing.tool_messages import OpenCalls, read_call_id, read_calls
from server.errors import bad_field
from server.text.chat_template import Message

ROLES = {
    "system": "system", "developer": "system", "user": "user", "assistant": "assistant", "tool": "tool"
}  # fmt: skip
"""Maps the role of a message in a request to its role in chat templates."""

_TAKEN = {
    "role": tuple(ROLES),
    "content": tuple(ROLES),
    "name": tuple(ROLES),
    "tool_calls": ("assistant",),
    "tool_call_id": ("tool",),
    "refusal": tuple(ROLES),
    "annotations": tuple(ROLES),
    "reasoning": tuple(ROLES),
    "reasoning_content": tuple(ROLES),
}
"""Maps each field of a message to the roles whose messages may have it."""

_PARTS = TextParts(
    kinds=("text",),
    fields=("type", "text", "cache_control", "prompt_cache_breakpoint", "annotations"),
    named=frozenset({"type", "text"}),
)
_MESSAGE_FIELDS = frozenset({*_TAKEN, "audio", "function_call"})
_EMPTY: tuple[object, ...] = (None, [], {})

BEGINNING = 512
"""Number of characters at a prompt's beginning that identify the conversation."""


def parse_messages(
    messages: Sequence[Mapping[str, Any]], unknown: UnknownFields | None = None
) -> list[Message]:
    """Convert OpenAI's messages to messages with plain text. Each tool call must be answered by a tool
    message right after the message with the call.

    Unknown fields are passed to `unknown`, which by default refuses only likely typos. Raises `ApiError` with
    the path of an unsupported value.
    """
    unknown = UnknownFields() if unknown is None else unknown
    calls = OpenCalls()
    parsed: list[Message] = []
    for index, message in enumerate(messages):
        path = f"messages[{index}]"
        item = _message(message, path, unknown)
        if item["role"] == "tool":
            item["name"] = calls.answer(item["tool_call_id"], f"{path}.tool_call_id")
        else:
            calls.check_answered()
            calls.open(item.get("tool_calls", ()), f"{path}.tool_calls")
        parsed.append(item)
    calls.check_answered()
    return parsed


def user_turns(messages: Sequence[Message]) -> tuple[str, ...]:
    """Return the texts of the user's messages, oldest first."""
    return tuple(message["content"] for message in messages if message["role"] == "user")


def system_prompt(messages: Sequence[Message]) -> str | None:
    """Return the part of the first system message that routing reads; None if there is no system message."""
    text = _first(messages, "system")
    return bounded(text) if text else None


def opening(messages: Sequence[Message], value: Mapping[str, object]) -> tuple[str, ...]:
    """Return a key that is the same for every request of a conversation: the hints about the user in the body
    `value`, and the first system and user messages.
    """
    return (*_asker(value), _first(messages, "system"), _first(messages, "user"))


def opening_of(prompt: str, value: Mapping[str, object]) -> tuple[str, ...]:
    """Return a key that is the same for every request of a conversation sent as text prompts: the hints about
    the user in the body `value`, and the prompt's beginning.
    """
    return (*_asker(value), prompt[:BEGINNING])


def _asker(value: Mapping[str, object]) -> tuple[str, ...]:
    """Return OpenAI's hints about the user (`prompt_cache_key`, `safety_identifier`, `user`). They do not
    identify a conversation alone, since an application may always send the same values.
    """
    given = (value.get(name) for name in ("prompt_cache_key", "safety_identifier", "user"))
    return tuple(item if isinstance(item, str) else "" for item in given)


def _first(messages: Sequence[Message], role: str) -> str:
    return next((str(message["content"]) for message in messages if message["role"] == role), "")


def _message(message: Mapping[str, Any], path: str, unknown: UnknownFields) -> dict[str, Any]:
    for name, value in message.items():
        if name not in _MESSAGE_FIELDS:
            if value is not None:
                unknown.meet(name, _MESSAGE_FIELDS, path)
        elif name not in _TAKEN and value not in _EMPTY:
            raise bad_field(
                f"{path}.{name}",
                f"{path}.{name} is not supported; remove this field.",
                code="unsupported_parameter",
            )
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        if role == "function":
            raise bad_field(
                f"{path}.role",
                f"{path}.role is 'function', a role that OpenAI replaced; send a message with the role "
                "'tool' instead, and the call itself in tool_calls of the assistant message.",
                code="invalid_value",
            )
        raise bad_field(
            f"{path}.role", f"{path}.role must be one of {', '.join(ROLES)}.", code="invalid_value"
        )
    for name in ("tool_calls", "tool_call_id"):
        if message.get(name) not in _EMPTY and role not in _TAKEN[name]:
            raise bad_field(
                f"{path}.{name}",
                f"{path}.{name} is allowed only if the role is {_TAKEN[name][0]}, not {role}; remove the "
                "field.",
                code="invalid_value",
            )
    return _with_tools(message, role, path, unknown)


def _with_tools(message: Mapping[str, Any], role: str, path: str, unknown: UnknownFields) -> dict[str, Any]:
    """Convert a message for the chat template. A message with tool calls or reasoning may have no content."""
    content, calls = message.get("content"), message.get("tool_calls")
    thought = message.get("reasoning_content") or message.get("reasoning")
    if content is None and role == "assistant":
        content = message.get("refusal") or ("" if thought or calls not in _EMPTY else None)
    text = _PARTS.read(content, f"{path}.content", unknown)
    item: dict[str, Any] = {"role": ROLES[role], "content": text}
    if calls not in _EMPTY:
        item["tool_calls"] = read_calls(calls, f"{path}.tool_calls", unknown)
    if role == "assistant" and isinstance(thought, str) and thought:
        item["reasoning_content"] = thought  # for the templates that show it to the model again
    if role == "tool":
        item["tool_call_id"] = read_call_id(message.get("tool_call_id"), f"{path}.tool_call_id")
    return item
