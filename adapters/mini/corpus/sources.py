"""Reading the data files: topics with their questions and answers, word lists, tables."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Literal

from adapters.mini.corpus.grammar import FillSlot
from adapters.mini.corpus.nonsense import gibberish, nonsense

Language = Literal["en", "sv"]
LANGUAGES: tuple[Language, Language] = ("en", "sv")
DATA = Path(__file__).parent / "data"


@dataclass(frozen=True, slots=True)
class Topic:
    """Questions that mean the same, and answers of which each fits each question."""

    name: str
    questions: tuple[str, ...]
    """Templates, see `grammar`."""
    answers: tuple[str, ...]
    """Plain text."""


def other(language: Language) -> Language:
    """The other of the two languages."""
    return "sv" if language == "en" else "en"


def data_lines(path: Path) -> list[str]:
    """Lines that hold something, without comments."""
    read = (line.rstrip("\n") for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in read if line.strip() and not line.startswith("#")]


@cache
def topics(language: Language, name: str) -> tuple[Topic, ...]:
    """The topics of `data/<language>/<name>.txt`; `identity` gets the questions of `clauses.txt` too."""
    found = parse_topics(language, name)
    if name != "identity":
        return found
    more = {topic.name: topic.questions for topic in parse_topics(language, "clauses")}
    frames = more.pop("frames")
    return tuple(
        Topic(
            topic.name,
            topic.questions
            + more.get(f"extra_{topic.name}", ())
            + tuple(
                frame.replace("{clause}", clause) for clause in more.get(topic.name, ()) for frame in frames
            ),
            topic.answers,
        )
        for topic in found
    )


@cache
def parse_topics(language: Language, name: str) -> tuple[Topic, ...]:
    """One file of topics: `[topic]`, then `Q` lines, then `A` lines."""
    path = DATA / language / f"{name}.txt"
    found: dict[str, tuple[list[str], list[str]]] = {}
    current: tuple[list[str], list[str]] | None = None
    for line in data_lines(path):
        if line.startswith("["):
            current = found.setdefault(line.strip("[] "), ([], []))
        elif current is not None and line[:2] in {"Q ", "A "}:
            current[line[0] == "A"].append(line[2:].replace("\\n", "\n") if line[0] == "A" else line[2:])
        else:
            raise ValueError(f"{path.name}: {line!r} is neither a [topic] nor a Q or A line")
    return tuple(Topic(topic, tuple(asked), tuple(said)) for topic, (asked, said) in found.items())


@cache
def word_lists(language: Language) -> Mapping[str, tuple[str, ...]]:
    """The lists of `data/<language>/lists.txt`, by name; sentences are separated by semicolons."""
    found: dict[str, tuple[str, ...]] = {}
    for line in data_lines(DATA / language / "lists.txt"):
        name, _, rest = line[1:].partition("] ")
        found[name] = tuple(entry.strip() for entry in rest.split(";" if name == "sentence" else ","))
    return found


@cache
def fills(language: Language) -> Mapping[str, FillSlot]:
    """What a template of `language` may put in its slots."""

    def drawer(words: Sequence[str]) -> FillSlot:
        return lambda rng: rng.choice(words)

    made: dict[str, FillSlot] = {name: drawer(words) for name, words in word_lists(language).items()}
    made["nonsense"] = lambda rng: nonsense(rng, language)
    made["gibberish"] = gibberish
    return made


@cache
def read_table(name: str, separator: str) -> tuple[tuple[str, ...], ...]:
    """The rows of `data/<name>.txt`."""
    return tuple(
        tuple(cell.strip() for cell in line.split(separator)) for line in data_lines(DATA / f"{name}.txt")
    )


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """One of `choices`."""
    return choices[rng.randrange(len(choices))]
