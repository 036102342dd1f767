"""Find out what a base's chat template reads of a message: its content as a string, as a list of parts, or
nothing.

It renders messages that hold a mark, once. vLLM distinguishes the two forms by the template's syntax tree
(`resolve_chat_template_content_format`). A mark also shows what a template omits.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

Message = Mapping[str, Any]
"""`role` and `content`, and other fields that the base's template reads, such as `tool_calls` and
`tool_call_id`.
"""
Render = Callable[[list[Message]], str | None]
"""Renders messages unchanged. None if the template refuses them."""

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
"""Maps each role to lists of messages that may precede its message. Each list is tried until the mark appears
in the text.
"""
_AFTER: Mapping[str, tuple[Message, ...]] = {"system": (_USER,), "assistant": (_USER,)}


def in_form(messages: Sequence[Message], in_parts: Collection[str]) -> list[Message]:
    """Return `messages`, with text as `[{"type": "text", "text": …}]` for the roles that are `in_parts`."""
    return [
        {**message, "content": [{"type": "text", "text": message["content"]}]}
        if message.get("role") in in_parts and isinstance(message.get("content"), str)
        else message
        for message in messages
    ]


def probe_roles(render: Render) -> tuple[frozenset[str], frozenset[str]]:
    """Return the roles whose content must be given in parts, and the roles whose content appears in the text.

    Raises `ValueError` if the template renders a user's message but omits its content in either form. A
    template that refuses the message is not judged: it will refuse each request.
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
                "the chat template does not print the user's message, neither as a string nor as a list of "
                "parts: correct it "
                "in chat_template.jinja or tokenizer_config.json"
            )
    return frozenset(in_parts), frozenset(read)


def _reads(render: Render, role: str, in_parts: Collection[str]) -> bool | None:
    """True if the mark appears in the rendered text after any of the role's lists of preceding messages. None
    if the template refuses all of them.
    """
    outcome: bool | None = None
    for before in _TURNS[role]:
        marked = {"role": role, "content": _MARK, **({"tool_call_id": _CALL["id"]} if role == "tool" else {})}
        text = render(in_form([*before, marked, *_AFTER.get(role, ())], in_parts))
        if text is not None and _MARK in text:
            return True
        outcome = outcome if text is None else False
    return outcome
