"""Find out how a base model's chat template reads message content: as a string, as a list of parts, or not at
all.

To find out, render messages whose content is a unique marker and look for the marker in the result. This also
shows which roles a template omits. vLLM instead inspects the template's syntax tree
(`resolve_chat_template_content_format`).
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
"""A chat message with `role` and `content`, and any other fields that the chat template reads, such as
`tool_calls` and `tool_call_id`.
"""
Render = Callable[[list[Message]], str | None]
"""A function that renders messages with a chat template, without changing them first. It returns None if the
template raises an error.
"""

_MARK = "4f1d"
_USER = {"role": "user", "content": "9c2b"}
_ANSWER = {"role": "assistant", "content": "b2c9"}
_FUNCTION: Message = {"name": "f", "arguments": {}}
_CALL = {"id": "a1b2c3d4e", "type": "function", "function": _FUNCTION}
_TURNS: Mapping[str, tuple[tuple[Message, ...], ...]] = {
    "user": ((), ({"role": "system", "content": "b2c9"},), (_USER, _ANSWER)),
    "system": ((),),
    "assistant": ((_USER,),),
    "tool": ((_USER, {"role": "assistant", "content": "", "tool_calls": [_CALL]}),),
}
"""Maps each role to the message histories that may precede a message of that role. `probe_roles` tries each
history until its marker appears in the rendered text.
"""
_AFTER: Mapping[str, tuple[Message, ...]] = {"system": (_USER,), "assistant": (_USER,)}


def in_form(messages: Sequence[Message], in_parts: Collection[str]) -> list[Message]:
    """Return `messages`, with string content turned into `[{"type": "text", "text": …}]` for the roles in
    `in_parts`.
    """
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if message.get("role") in in_parts and isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def probe_roles(render: Render) -> tuple[frozenset[str], frozenset[str]]:
    """Return two sets of roles: those whose content the chat template only reads as a list of parts, and
    those whose content appears in the rendered text.

    Raises `ValueError` if the template renders a user message but prints its content in neither form. A
    template that raises an error for every test message passes here; it will reject each request later.
    """
    in_parts, read = set[str](), set[str]()
    for role in _TURNS:
        forms = (in_parts, in_parts | {role})
        found = [_reads(render, role, form) for form in forms]
        if found[0] is not True and found[1] is True:
            in_parts.add(role)
        if True in found:
            read.add(role)
        elif role == "user" and False in found:
            raise ValueError(
                "the chat template leaves out the user's message, both as a string and as a list of parts: "
                "correct the template "
                "in chat_template.jinja or tokenizer_config.json"
            )
    return frozenset(in_parts), frozenset(read)


def _reads(render: Render, role: str, in_parts: Collection[str]) -> bool | None:
    """Return whether the chat template prints the content of a message with `role` after at least one of the
    message histories that may precede it. Return None if the template raises an error after all of them.
    """
    outcome: bool | None = None
    for before in _TURNS[role]:
        marked = {"role": role, "content": _MARK, **({"tool_call_id": _CALL["id"]} if role == "tool" else {})}
        text = render(in_form([*before, marked, *_AFTER.get(role, ())], in_parts))
        if text is not None and _MARK in text:
            return True
        outcome = outcome if text is None else False
    return outcome
