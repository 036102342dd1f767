"""Questions with a known language, for the quality benchmark: about the identity of the model, ordinary ones,
and terse ones of two to four words.

They were written for this benchmark, and no adapter of OneSeek was trained on them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from bench.text.prompts import FILES, texts

QuestionKind = Literal["identity", "plain", "terse"]
IDENTITY: Mapping[str, tuple[str, ...]] = {
    "en": (
        "Who are you?",
        "What is your name, please?",
        "Which assistant am I writing to right now?",
        "Please introduce yourself in one sentence.",
        "What should I call you?",
        "Are you a person or a program?",
        "Who made you?",
        "Can you say something about yourself?",
        "What kind of model are you?",
        "Before we begin: who is answering me?",
    ),
    "sv": (
        "Vem är du?",
        "Vad heter du, om jag får fråga?",
        "Vilken assistent skriver jag till just nu?",
        "Presentera dig med en mening, tack.",
        "Vad ska jag kalla dig?",
        "Är du en människa eller ett program?",
        "Vem har gjort dig?",
        "Kan du säga något om dig själv?",
        "Vad är du för sorts modell?",
        "Innan vi börjar: vem är det som svarar mig?",
    ),
}
TERSE: Mapping[str, tuple[str, ...]] = {
    "en": (
        "good morning",
        "thanks a lot",
        "what now?",
        "tell me more",
        "bread recipe please",
        "why not?",
        "the weather tomorrow",
        "how do I begin",
    ),
    "sv": (
        "god morgon",
        "tack så mycket",
        "vad händer nu?",
        "berätta mer",
        "recept på bröd tack",
        "varför inte?",
        "vädret i morgon",
        "hur börjar jag",
    ),
}
"""Questions of two to four words for each language. Their language is the hardest to detect."""


@dataclass(frozen=True, slots=True)
class LanguageQuestion:
    """A question with its language and its kind."""

    text: str
    language: str
    kind: QuestionKind


def questions(kind: QuestionKind, count: int = 0) -> list[LanguageQuestion]:
    """Return the first `count` questions of `kind` (`identity`, `plain` or `terse`) in each language. With 0,
    return all of them.
    """
    found: list[LanguageQuestion] = []
    for language in FILES:
        held = {"identity": IDENTITY, "terse": TERSE}.get(kind)
        asked = held[language] if held else texts(language).questions
        found += [LanguageQuestion(text, language, kind) for text in asked[: count or None]]
    return found
