"""OpenAI's messages: roles, content parts, and what of them can be served."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

from server.api.convert import unknown_field
from server.api.errors import bad_field

ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
"""A message's role → the role that chat templates know."""

_MESSAGE_FIELDS = frozenset(
    {"role", "content", "name", "refusal", "annotations", "tool_calls", "function_call"}
)
_EMPTY: tuple[object, ...] = (None, [], {})

Message = dict[str, str]
"""`{"role", "content"}`, what a chat template renders."""


def parse_messages(messages: Sequence[Mapping[str, Any]]) -> list[Message]:
    """Messages with plain text contents. Raises `ApiError` with the path of what cannot be served."""
    return [_message(message, f"messages[{index}]") for index, message in enumerate(messages)]


def user_turns(messages: Sequence[Message]) -> tuple[str, ...]:
    """What the user said, oldest first."""
    return tuple(message["content"] for message in messages if message["role"] == "user")


def _message(message: Mapping[str, Any], path: str) -> Message:
    for name, value in message.items():
        if name not in _MESSAGE_FIELDS:
            raise unknown_field(name, _MESSAGE_FIELDS, f"{path}.")
        if name not in ("role", "content", "name") and value not in _EMPTY:
            raise bad_field(f"{path}.{name}", f"{path}.{name} is not served.", code="unsupported_parameter")
    role = message.get("role")
    if not isinstance(role, str) or role not in ROLES:
        known = ", ".join(ROLES)
        reason = "tools are not served" if role in ("tool", "function") else f"it must be one of {known}"
        raise bad_field(f"{path}.role", f"{path}.role: {reason}.", code="invalid_value")
    return {"role": ROLES[role], "content": _content(message.get("content"), f"{path}.content")}


def _content(content: object, path: str) -> str:
    if isinstance(content, str):
        return content
    if content is None:
        raise bad_field(path, f"{path} is required.", code="missing_required_parameter")
    if not isinstance(content, list):
        raise bad_field(path, f"{path} must be a string or an array of parts.", code="invalid_type")
    parts = cast("list[object]", content)
    return "".join(_part(part, f"{path}[{index}]") for index, part in enumerate(parts))


def _part(part: object, path: str) -> str:
    if not isinstance(part, dict):
        raise bad_field(path, f"{path} must be an object with type and text.", code="invalid_type")
    fields = cast("dict[str, object]", part)
    kind = fields.get("type")
    if kind != "text":
        shown = f"{kind[:40]!r} " if isinstance(kind, str) else ""
        raise bad_field(
            f"{path}.type", f"{path}.type: {shown}parts are not served, only text.", code="unsupported_value"
        )
    text = fields.get("text")
    if not isinstance(text, str):
        raise bad_field(f"{path}.text", f"{path}.text must be a string.", code="invalid_type")
    for name in fields:
        if name not in ("type", "text", "cache_control", "prompt_cache_breakpoint", "annotations"):
            raise unknown_field(name, frozenset({"type", "text"}), f"{path}.")
    return text
