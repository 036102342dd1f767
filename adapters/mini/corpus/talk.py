"""Units of the corpus: single exchanges, and conversations of several."""

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
    """The answer translated to the other of the two languages, English and Swedish. None if there is no
    translation.
    """


@dataclass(frozen=True, slots=True)
class Talk:
    """A conversation. `system` precedes the first question, as in Mistral's template."""

    turns: tuple[QuestionAnswer, ...]
    system: str = ""
