"""Rewrites conversations that a base's chat template does not support: merges messages, and writes tools as
text.

Merging follows Mistral's reference tokenizer (mistral-common, `InstructRequestNormalizer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, TypeAlias

from server.text.tool_formats import PROBE_NAME, ToolFormat
from server.text.tool_signature import signature

Messages: TypeAlias = list[dict[str, Any]]
RenderProbe: TypeAlias = Callable[[Messages], str | None]
"""Type of a function that renders messages with a chat template, to test it. Returns None if the template
refuses the messages.
"""

JOIN = "\n\n"
"""Text between the texts of messages that are merged into one message."""

_SYSTEM, _USER, _ASSISTANT, _LAST = "3b7e", "9c2b", "b2c9", "6d4f"
_KINDS: Mapping[str, tuple[tuple[str, str], ...]] = {
    "systems": (("system", _SYSTEM), ("system", _LAST), ("user", _USER)),
    "late system": (("user", _USER), ("assistant", _ASSISTANT), ("system", _SYSTEM), ("user", _LAST)),
    "system alone": (("system", _SYSTEM),),
    "users": (("user", _USER), ("user", _LAST)),
    "assistants": (("user", _USER), ("assistant", _ASSISTANT), ("assistant", _LAST), ("user", _SYSTEM)),
    "assistant first": (("assistant", _ASSISTANT), ("user", _USER)),
}
"""Maps each unusual order of roles, which some templates refuse, to an example: its messages as (role, text),
all texts different.
"""
ALL_KINDS = frozenset(_KINDS)


def refused_kinds(render: RenderProbe) -> frozenset[str]:
    """Return the unusual orders of roles (keys of `_KINDS`) that a template refuses or does not render
    completely.

    An assistant's text need not be rendered, since some templates render only the other roles.
    """
    return frozenset(kind for kind, turns in _KINDS.items() if not _is_taken(render, turns))


def kinds_of(messages: Sequence[Mapping[str, Any]]) -> frozenset[str]:
    """Return the unusual orders of roles (keys of `_KINDS`) that `messages` contain; empty if their order is
    ordinary.
    """
    roles = [message.get("role") for message in messages]
    rest = [role for role in roles if role != "system"]
    found: set[str] = set()
    if rest and rest[0] == "assistant":
        found.add("assistant first")
    if roles and not rest:
        found.add("system alone")
    for before, role in pairwise(roles):
        if before == role == "system":
            found.add("systems")
        elif role == "system":
            found.add("late system")
        elif before == role and role in ("user", "assistant"):
            found.add(f"{role}s")
    return frozenset(found)


def merged(messages: Messages, refused: frozenset[str]) -> Messages:
    """Rewrite `messages` so that they contain none of the `refused` orders of roles (keys of `_KINDS`).

    System messages are merged into one at the beginning. Neighbouring messages of the same role are merged.
    If an assistant's message comes first, an empty user message is inserted before it.
    """
    kinds = kinds_of(messages) & refused
    if "late system" in kinds:
        system = [message for message in messages if message.get("role") == "system"]
        turns = [message for message in messages if message.get("role") != "system"]
        messages = [_joined(system), *turns]
        kinds = kinds_of(messages) & refused
    one = {kind.removesuffix("s") for kind in kinds if kind.endswith("s")}
    turns = []
    for message in messages:
        if turns and message.get("role") in one and turns[-1].get("role") == message.get("role"):
            turns[-1] = _joined([turns[-1], message])
        else:
            turns.append(message)
    if kinds & {"assistant first", "system alone"}:
        turns.insert(_leading_systems(turns), {"role": "user", "content": ""})
    return turns


def with_system_in_user(messages: Messages) -> Messages:
    """Remove the system messages at the beginning, and put their text before that of the first user
    message.
    """
    count = _leading_systems(messages)
    rest = messages[count:]
    if not count or not rest or rest[0].get("role") != "user":
        return messages
    texts = [message.get("content") for message in [*messages[:count], rest[0]]]
    if not all(isinstance(text, str) for text in texts):
        return messages
    return [{**rest[0], "content": JOIN.join(str(text) for text in texts)}, *rest[1:]]


def one_call_each(messages: Messages) -> Messages:
    """Split each message with several tool calls into messages with one call each. The result of each call
    follows its message.
    """
    split: Messages = []
    results: dict[str, dict[str, Any]] = {}
    for index, message in enumerate(messages):
        calls = message.get("tool_calls") or []
        if len(calls) < 2:
            if message.get("role") != "tool" or message.get("tool_call_id") not in results:
                split.append(message)
            continue
        results = {}
        for result in messages[index + 1 : index + 1 + len(calls)]:
            if result.get("role") == "tool":
                results[result["tool_call_id"]] = result
        for place, call in enumerate(calls):
            split.append({**message, "content": "" if place else message["content"], "tool_calls": [call]})
            if call["id"] in results:
                split.append(results[call["id"]])
    return split


def takes_several_calls(render: RenderProbe) -> bool:
    """Return False if a template refuses messages with two tool calls but accepts messages with one call."""
    functions: Messages = [{"name": f"{PROBE_NAME}{place}", "arguments": {}} for place in range(2)]
    calls: Messages = [
        {"id": f"a1b2c3d4{place}", "type": "function", "function": function}
        for place, function in enumerate(functions)
    ]
    results: Messages = [
        {"role": "tool", "tool_call_id": call["id"], "name": call["function"]["name"], "content": "b2c9"}
        for call in calls
    ]
    asked: Messages = [{"role": "user", "content": _USER}]
    several = [*asked, {"role": "assistant", "content": "", "tool_calls": calls}, *results]
    return render(several) is not None or render(one_call_each(several)) is None


def calls_as_text(messages: Messages, form: ToolFormat) -> Messages:
    """Write tool calls as text of the assistant, and neighbouring tool results as the text of one user
    message.
    """
    plain: Messages = []
    results = False
    for message in messages:
        if message.get("role") == "tool":
            result = f"Result of {message.get('name', 'the call')}: {message['content']}"
            if results:
                plain[-1] = {"role": "user", "content": plain[-1]["content"] + "\n" + result}
            else:
                plain.append({"role": "user", "content": result})
        elif message.get("tool_calls"):
            said = [message["content"]] if message.get("content") else []
            written = form.write(message["tool_calls"])
            plain.append({"role": "assistant", "content": "\n".join([*said, written])})
        else:
            plain.append(message)
        results = message.get("role") == "tool"
    return plain


def with_described(messages: Messages, tools: Sequence[Mapping[str, Any]], form: ToolFormat) -> Messages:
    """Describe `tools` at the end of the first message if it is a system message, or else in a new system
    message.
    """
    described = {"role": "system", "content": _description(tools, form)}
    if messages and messages[0].get("role") == "system":
        return [_joined([messages[0], described]), *messages[1:]]
    return [described, *messages]


def _description(tools: Sequence[Mapping[str, Any]], form: ToolFormat) -> str:
    example = form.write([{"function": {"name": "NAME", "arguments": {"PARAMETER": "VALUE"}}}])
    listed = "\n".join(signature(tool["function"]) for tool in tools)
    return f"You can call these tools:\n{listed}\nTo call them, answer with nothing but:\n{example}"


def _leading_systems(messages: Messages) -> int:
    roles = (place for place, message in enumerate(messages) if message.get("role") != "system")
    return next(roles, len(messages))


def _joined(messages: Messages) -> dict[str, Any]:
    """Merge messages of the same role into one message with all their texts and tool calls."""
    texts = [message["content"] for message in messages if message.get("content")]
    calls = [call for message in messages for call in message.get("tool_calls") or ()]
    one = {**messages[0], "content": JOIN.join(texts)}
    return one | {"tool_calls": calls} if calls else one


def _is_taken(render: RenderProbe, turns: Sequence[tuple[str, str]]) -> bool:
    text = render([{"role": role, "content": content} for role, content in turns])
    return text is not None and all(content in text for role, content in turns if role != "assistant")
