"""Converts `input` and `instructions` of /v1/responses to messages."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from server.api.fields.unknown import UnknownFields
from server.api.parsing.parts import TextParts
from server.errors import bad_field
from server.text.chat_template import Message

_ROLES = {"system": "system", "developer": "system", "user": "user", "assistant": "assistant"}
_ITEM_FIELDS = frozenset({"type", "id", "role", "content", "status", "phase"})
_PART_FIELDS = frozenset({"type", "text", "annotations", "logprobs", "prompt_cache_breakpoint"})
_PARTS = TextParts(kinds=("input_text", "output_text", "text"), fields=_PART_FIELDS, named=_PART_FIELDS)
_BETWEEN = "\n\n"


def parse_input(
    given: str | Sequence[Mapping[str, Any]],
    instructions: str | None,
    unknown: UnknownFields | None = None,
) -> list[Message]:
    """Return the conversation as messages, beginning with `instructions`, which are merged into a leading
    system message if there is one.

    Unknown fields are passed to `unknown`, which by default refuses only likely typos. Raises `ApiError` with
    the path of an unsupported value.
    """
    unknown = UnknownFields() if unknown is None else unknown
    if isinstance(given, str):
        messages: list[Message] = [{"role": "user", "content": given}]
    else:
        messages = [_message(item, f"input[{index}]", unknown) for index, item in enumerate(given)]
    if instructions is None:
        return messages
    if messages[0]["role"] != "system":
        return [{"role": "system", "content": instructions}, *messages]
    # Chat templates know one system message, and know it at the beginning alone.
    return [{"role": "system", "content": instructions + _BETWEEN + messages[0]["content"]}, *messages[1:]]


def _message(item: Mapping[str, Any], path: str, unknown: UnknownFields) -> Message:
    kind = item.get("type")
    if kind not in (None, "message"):
        if kind == "item_reference":
            raise bad_field(
                f"{path}.type",
                f"{path}.type is 'item_reference', but the server does not store items; send the item "
                "itself.",
                code="unsupported_value",
            )
        shown = repr(kind[:40]) if isinstance(kind, str) else "not a string"
        raise bad_field(
            f"{path}.type",
            f"{path}.type is {shown}; only items of type message are supported.",
            code="unsupported_value",
        )
    for name, value in item.items():
        if name not in _ITEM_FIELDS and value is not None:
            unknown.meet(name, _ITEM_FIELDS, path)
    role = item.get("role")
    if not isinstance(role, str) or role not in _ROLES:
        raise bad_field(
            f"{path}.role", f"{path}.role must be one of {', '.join(_ROLES)}.", code="invalid_value"
        )
    text = _PARTS.read(item.get("content"), f"{path}.content", unknown)
    return {"role": _ROLES[role], "content": text}
