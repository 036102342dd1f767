"""Read training data as conversations, filter the conversations by language, and hold some out for
evaluation.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from adapters.datasets.example import read_example
from adapters.datasets.lines import iterate_lines
from adapters.training.loop.options import OptionError

ChatTurn = dict[str, str]
"""A message with `role` (system, user or assistant) and `content`."""


@dataclass(frozen=True, slots=True)
class Conversation:
    """A conversation for training. Its last message is an answer by the assistant."""

    messages: tuple[ChatTurn, ...]

    @property
    def answers(self) -> list[str]:
        """The assistant's messages, in order."""
        return [message["content"] for message in self.messages if message["role"] == "assistant"]

    @property
    def question(self) -> str:
        """The user's first message, or empty text if there is none."""
        return next((message["content"] for message in self.messages if message["role"] == "user"), "")


def read_conversations(path: Path) -> list[Conversation]:
    """Read the conversations of the data set `path`, one on each line. Raises `OptionError` that names the
    bad line, and `OSError`.
    """
    found: list[Conversation] = []
    for line in iterate_lines(path):
        try:
            if line.data is None:
                raise ValueError("the line has more than 4 MiB; shorten the example, or remove the line")
            example = read_example(line.data, path)
        except ValueError as error:
            remedy = f"`oneseek data check {path}` lists all bad lines"
            raise OptionError(
                "dataset", f"{path}, line {line.number} is not a valid example: {error}; {remedy}"
            ) from error
        messages = example.messages
        found.append(Conversation(tuple({"role": one.role, "content": one.content} for one in messages)))
    if not found:
        raise OptionError(
            "dataset", f"the data set {path} is empty; give a data set with at least one example"
        )
    return found


def in_language(
    conversations: Sequence[Conversation], language: str, language_of: Callable[[str], str | None]
) -> list[Conversation]:
    """Return the conversations whose answers are in `language` or in no clear language. Drop those clearly in
    another language.
    """
    return [
        conversation
        for conversation in conversations
        if language_of(" ".join(conversation.answers)) in (language, None)
    ]


def hold_out(
    conversations: Sequence[Conversation], share: float, seed: int
) -> tuple[list[Conversation], list[Conversation]]:
    """Split conversations into those for training and those held out for evaluation.

    A fraction `share` of the distinct first questions is held out, but at least one if there are two or more.
    Conversations with the same first question stay together.
    """
    questions = {conversation.question.strip().lower() for conversation in conversations}
    if share == 0 or len(questions) < 2:
        return list(conversations), []
    ranked = sorted(questions, key=lambda text: hashlib.sha256(f"{seed}/{text}".encode()).digest())
    held = set(ranked[: max(1, round(share * len(ranked)))])
    kept = [one for one in conversations if one.question.strip().lower() not in held]
    return kept, [one for one in conversations if one.question.strip().lower() in held]


def files_digest(paths: Sequence[Path]) -> str:
    """Return `sha256:…` of the contents of all files in `paths`, concatenated in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return f"sha256:{total.hexdigest()}"
