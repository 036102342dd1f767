"""Training data as conversations: which are in a language, and which are held out."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.datasets.example import read_example
from adapters.datasets.lines import iterate_lines
from adapters.training.loop.options import OptionError

ChatTurn = dict[str, str]
"""`role` (system, user or assistant) and `content`."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages, the last of them an answer."""

    messages: tuple[ChatTurn, ...]

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
    for line in iterate_lines(path):
        try:
            if line.data is None:
                raise ValueError("is too long")
            example = read_example(line.data, path)
        except ValueError as error:
            remedy = f"oneseek data check {path} lists every such line"
            raise OptionError("dataset", f"{path}, line {line.number}: {error}; {remedy}") from error
        messages = example.messages
        found.append(Conversation(tuple({"role": one.role, "content": one.content} for one in messages)))
    if not found:
        raise OptionError("dataset", f"{path} holds no examples")
    return found


def in_language(
    conversations: Sequence[Conversation], language: str, language_of: Callable[[str], str | None]
) -> list[Conversation]:
    """Those whose answers are in `language`, as far as one can tell: what is clearly another is left out."""
    return [
        conversation
        for conversation in conversations
        if language_of(" ".join(conversation.answers)) in (language, None)
    ]


def hold_out(
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
