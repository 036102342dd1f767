"""Training data as conversations: filter them by language, and hold some out."""

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
    """The messages of a conversation. The last one is an answer."""

    messages: tuple[ChatTurn, ...]

    @property
    def answers(self) -> list[str]:
        """The assistant's answers, in order."""
        return [message["content"] for message in self.messages if message["role"] == "assistant"]

    @property
    def question(self) -> str:
        """The first message of the user."""
        return next((message["content"] for message in self.messages if message["role"] == "user"), "")


def read_conversations(path: Path) -> list[Conversation]:
    """Read the conversations in `path`, one on each line. Raises `OptionError` naming the line, and
    `OSError`.
    """
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
        raise OptionError("dataset", f"{path} does not hold any examples")
    return found


def in_language(
    conversations: Sequence[Conversation], language: str, language_of: Callable[[str], str | None]
) -> list[Conversation]:
    """Keep conversations whose answers are in `language`. Only those clearly in another language are
    dropped.
    """
    return [
        conversation
        for conversation in conversations
        if language_of(" ".join(conversation.answers)) in (language, None)
    ]


def hold_out(
    conversations: Sequence[Conversation], share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Split into training and held-out conversations. `share` of the questions are held out; at least one of
    two or more.

    All answers to one question go to the same side.
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
