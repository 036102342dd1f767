"""What the corpus is made of: single exchanges, and conversations of several."""

from __future__ import annotations

from dataclasses import dataclass

from adapters.mini.corpus.sources import Language


@dataclass(frozen=True, slots=True)
class QuestionAnswer:
    """One question and its answer."""

    language: Language
    kind: str
    question: str
    answer: str
    translated: str | None = None
    """The same answer in the other language, where there is one."""


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation; `system` goes before the first question, as Mistral's template does it."""

    turns: tuple[QuestionAnswer, ...]
    system: str = ""
