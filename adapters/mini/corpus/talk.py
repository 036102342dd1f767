"""The units of the training corpus: a question with its answer, and a conversation of several."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.mini.corpus.sources import Language


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One question and its answer, in one language."""

    language: Language
    kind: str
    question: str
    answer: str
    translated: str | None = None
    """The answer in the other language, English or Swedish. None if there is no translation."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation of questions and answers. The text of `system` is put before the first question, as in
    Mistral's chat template.
    """

    turns: tuple[QuestionAnswer, ...]
    system: str = ""
