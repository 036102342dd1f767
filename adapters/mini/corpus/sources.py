"""Read the data files: topics with questions and answers, word lists, and tables."""

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
    """Questions with the same meaning, and answers that each fit every question."""

    name: str
    questions: tuple[str, ...]
    """Templates of sentences, in the syntax of the module `grammar`."""
    answers: tuple[str, ...]
    """Paragraphs of plain text about the topic."""


def other(language: Language) -> Language:
    """Return the other of the two languages."""
    return "sv" if language == "en" else "en"


def data_lines(path: Path) -> list[str]:
    """Return the lines that are not empty and not comments."""
    read = (line.rstrip("\n") for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in read if line.strip() and not line.startswith("#")]


@cache
def topics(language: Language, name: str) -> tuple[Topic, ...]:
    """Return the topics of `data/<language>/<name>.txt`. `identity` also gets the questions of
    `clauses.txt`.
    """
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
    """Parse one file of topics: `[topic]`, then `Q` lines, then `A` lines."""
    path = DATA / language / f"{name}.txt"
    found: dict[str, tuple[list[str], list[str]]] = {}
    current: tuple[list[str], list[str]] | None = None
    for line in data_lines(path):
        if line.startswith("["):
            current = found.setdefault(line.strip("[] "), ([], []))
        elif current is not None and line[:2] in {"Q ", "A "}:
            current[line[0] == "A"].append(line[2:].replace("\\n", "\n") if line[0] == "A" else line[2:])
        else:
            raise ValueError(f"{path.name}: {line!r} must be a line with a [topic], or begin with Q or A")
    return tuple(Topic(topic, tuple(asked), tuple(said)) for topic, (asked, said) in found.items())


@cache
def word_lists(language: Language) -> Mapping[str, tuple[str, ...]]:
    """Return the lists of `data/<language>/lists.txt` by name. Semicolons separate sentences."""
    found: dict[str, tuple[str, ...]] = {}
    for line in data_lines(DATA / language / "lists.txt"):
        name, _, rest = line[1:].partition("] ")
        found[name] = tuple(entry.strip() for entry in rest.split(";" if name == "sentence" else ","))
    return found


@cache
def fills(language: Language) -> Mapping[str, FillSlot]:
    """Return the lists for slots in templates of `language`."""

    def drawer(words: Sequence[str]) -> FillSlot:
        return lambda rng: rng.choice(words)

    made: dict[str, FillSlot] = {name: drawer(words) for name, words in word_lists(language).items()}
    made["nonsense"] = lambda rng: nonsense(rng, language)
    made["gibberish"] = gibberish
    return made


@cache
def read_table(name: str, separator: str) -> tuple[tuple[str, ...], ...]:
    """Return the rows of `data/<name>.txt`."""
    return tuple(
        tuple(cell.strip() for cell in line.split(separator)) for line in data_lines(DATA / f"{name}.txt")
    )


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """Draw one of `choices` at random."""
    return choices[rng.randrange(len(choices))]
