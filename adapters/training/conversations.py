"""Training data as conversations: which are in a language, and which are held out."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from adapters.training.options import OptionError

Message = dict[str, str]
"""`role` (system, user or assistant) and `content`."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, the last of them an answer."""

    messages: tuple[Message, ...]

    @property
    def answers(self) -> list[str]:
        """What the assistant says, in order."""
        return [message["content"] for message in self.messages if message["role"] == "assistant"]

    @property
    def question(self) -> str:
        """What the user says first."""
        return next((message["content"] for message in self.messages if message["role"] == "user"), "")


def read_conversations(path: Path) -> list[Conversation]:
    """The conversations in `path`, one for each line. Raises `OptionError` naming the line, and `OSError`."""
    found: list[Conversation] = []
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            found.append(_conversation(json.loads(line)))
        except ValueError as error:
            remedy = f"oneseek data check {path} lists every such line"
            raise OptionError("dataset", f"{path}, line {number}: {error}; {remedy}") from error
    if not found:
        raise OptionError("dataset", f"{path} holds no examples")
    return found


def _conversation(row: object) -> Conversation:
    if not isinstance(row, dict):
        raise ValueError("is no JSON object")
    fields = cast("dict[str, Any]", row)
    if "messages" in fields:
        return Conversation(_messages(fields["messages"]))
    for name in ("instruction", "output"):
        if not isinstance(fields.get(name), str) or not fields[name].strip():
            raise ValueError(f"{name} is missing or empty")
    more = fields.get("input") or ""
    if not isinstance(more, str):
        raise ValueError("input is no text")
    asked = f"{fields['instruction']}\n\n{more}" if more.strip() else fields["instruction"]
    return Conversation(
        ({"role": "user", "content": asked}, {"role": "assistant", "content": fields["output"]})
    )


def _messages(given: object) -> tuple[Message, ...]:
    if not isinstance(given, list) or not given:
        raise ValueError("messages is no list of messages")
    found: list[Message] = []
    for message in cast("list[object]", given):
        about = cast("dict[str, Any]", message) if isinstance(message, dict) else {}
        role, content = about.get("role"), about.get("content")
        if role not in ("system", "user", "assistant"):
            raise ValueError(f"a message has the role {role!r}; there are system, user and assistant")
        if not isinstance(content, str) or not content.strip():
            raise ValueError(f"a message of {role} is empty or no text")
        found.append({"role": role, "content": content})
    if found[-1]["role"] != "assistant":
        raise ValueError("the last message is not the assistant's")
    return tuple(found)


def in_language(
    conversations: Sequence[Conversation], language: str, language_of: Callable[[str], str | None]
) -> list[Conversation]:
    """Those whose answers are in `language`, as far as one can tell: what is clearly another is left out."""
    return [
        conversation
        for conversation in conversations
        if language_of(" ".join(conversation.answers)) in (language, None)
    ]


def split(
    conversations: Sequence[Conversation], share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """What is trained on and what is held out: a `share` of the questions, at least one where there are two.

    A question goes to one side with all its answers.
    """
    questions = {conversation.question.strip().lower() for conversation in conversations}
    if share == 0 or len(questions) < 2:
        return list(conversations), []
    ranked = sorted(questions, key=lambda text: hashlib.sha256(f"{seed}/{text}".encode()).digest())
    held = set(ranked[: max(1, round(share * len(ranked)))])
    kept = [one for one in conversations if one.question.strip().lower() not in held]
    return kept, [one for one in conversations if one.question.strip().lower() in held]


def files_digest(paths: Sequence[Path]) -> str:
    """`sha256:` over the files' bytes, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return f"sha256:{total.hexdigest()}"
