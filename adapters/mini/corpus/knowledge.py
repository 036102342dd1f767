"""Draw training questions about facts, definitions and capitals, each with its answer in English
and Swedish.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from functools import cache

from adapters.mini.corpus.grammar import expand
from adapters.mini.corpus.sources import DATA, Language, data_lines, other, pick, read_table
from adapters.mini.corpus.talk import QuestionAnswer

_WHAT: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is {}?",
        "What's {}?",
        "What is {}?",
        "Explain what {} is.",
        "What does the word {} mean?",
        "Tell me what {} is.",
        "Can you explain what {} is?",
        "Do you know what {} is?",
        "What do you mean by {}?",
        "Describe {}.",
        "Tell me about {}.",
        "What exactly is {}?",
    ),
    "sv": (
        "Vad är {}?",
        "Vad är {} för något?",
        "Vad är {}?",
        "Förklara vad {} är.",
        "Vad betyder ordet {}?",
        "Berätta vad {} är.",
        "Kan du förklara vad {} är?",
        "Vet du vad {} är?",
        "Vad menas med {}?",
        "Beskriv {}.",
        "Berätta om {}.",
        "Vad är egentligen {}?",
    ),
}
_CAPITAL: dict[Language, tuple[str, ...]] = {
    "en": (
        "What is the capital of {}?",
        "What's the capital of {}?",
        "Which city is the capital of {}?",
        "Tell me the capital of {}.",
        "Name the capital of {}.",
        "Do you know the capital of {}?",
        "What is the capital city of {}?",
        "What is {}'s capital?",
        "Capital of {}?",
        "What is the capital city in {}?",
    ),
    "sv": (
        "Vad heter {}s huvudstad?",
        "Vilken är {}s huvudstad?",
        "Vad heter huvudstaden i {}?",
        "Vilken stad är huvudstad i {}?",
        "Vad är huvudstaden i {}?",
        "Säg {}s huvudstad.",
        "Vet du vad {}s huvudstad heter?",
        "Vad är {}s huvudstad?",
        "Huvudstaden i {}?",
        "Nämn huvudstaden i {}.",
    ),
}


@dataclass(frozen=True, slots=True)
class Fact:
    """A fact in English and Swedish: question templates in each language, and one answer in each language."""

    asked: dict[Language, tuple[str, ...]]
    answer: dict[Language, str]


def _bars(text: str) -> tuple[str, ...]:
    """Split the template `text` at each bar `|` that is outside brackets."""
    found, depth = [""], 0
    for char in text:
        depth += (char == "(") - (char == ")")
        if char == "|" and depth == 0:
            found.append("")
        else:
            found[-1] += char
    return tuple(found)


@cache
def facts() -> tuple[Fact, ...]:
    """Read all facts from `data/facts.txt`."""
    rows = data_lines(DATA / "facts.txt")
    found: list[Fact] = []
    for q, a, f, s in zip(rows[::4], rows[1::4], rows[2::4], rows[3::4], strict=True):
        if (q[:2], a[:2], f[:2], s[:2]) != ("q ", "a ", "f ", "s "):
            raise ValueError(
                f"facts.txt: the four lines from {q!r} must begin with q, a, f and s in this order"
            )
        found.append(Fact({"en": _bars(q[2:]), "sv": _bars(f[2:])}, {"en": a[2:], "sv": s[2:]}))
    return tuple(found)


def fact(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question about a random fact, and its answer."""
    chosen = rng.choice(facts())
    asked = expand(pick(rng, chosen.asked[language]), rng, {})
    return QuestionAnswer(language, "fact", asked, chosen.answer[language], chosen.answer[other(language)])


def definition(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question for a definition, such as `What is a lake?`, and its answer."""
    english, swedish, in_english, in_swedish = rng.choice(read_table("definitions", ";"))
    name = english if language == "en" else swedish
    if rng.random() < 0.2:
        name = name.removeprefix("a ").removeprefix("an ").removeprefix("en ").removeprefix("ett ")
    answers: dict[Language, str] = {"en": in_english, "sv": in_swedish}
    asked = pick(rng, _WHAT[language]).format(name)
    return QuestionAnswer(language, "definition", asked, answers[language], answers[other(language)])


def capital_answer(row: tuple[str, ...], language: Language) -> str:
    """Return the sentence in `language` that names the capital of a country. `row` is a line of the table of
    capitals.
    """
    if language == "en":
        return f"The capital of {row[0]} is {row[1]}".rstrip(".") + "."
    owner = row[2] if row[2].endswith("s") else row[2] + "s"
    return f"{owner} huvudstad är {row[3]}."


def capital(rng: random.Random, language: Language, row: tuple[str, ...] | None = None) -> QuestionAnswer:
    """Draw a question about a capital, such as `What is the capital of France?`, and its answer."""
    row = row or rng.choice(read_table("capitals", ";"))
    country, city = (row[0], row[1]) if language == "en" else (row[2], row[3])
    if rng.random() < 0.1:
        city = city.rstrip(".")
        asked = pick(
            rng,
            (f"Where is {city}?", f"Which country is {city} the capital of?", f"What country is {city} in?")
            if language == "en"
            else (f"Var ligger {city}?", f"Vilket land är {city} huvudstad i?"),
        )
        answers: dict[Language, str] = {
            "en": f"{row[1].rstrip('.')} is the capital of {row[0]}.",
            "sv": f"{row[3]} är huvudstad i {row[2]}.",
        }
        return QuestionAnswer(language, "capital", asked, answers[language], answers[other(language)])
    asked = pick(rng, _CAPITAL[language]).format(country).replace("ss huvudstad", "s huvudstad")
    return QuestionAnswer(
        language, "capital", asked, capital_answer(row, language), capital_answer(row, other(language))
    )
