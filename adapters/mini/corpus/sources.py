"""Read the corpus's data files: topics with questions and answers, word lists, and tables."""

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
    """A topic of the corpus: questions with the same meaning, and answers, each of which fits every
    question.
    """

    name: str
    questions: tuple[str, ...]
    """Question templates, in the template language of the module `grammar`."""
    answers: tuple[str, ...]
    """The possible answers, as plain text."""


def other(language: Language) -> Language:
    """Return the other one of the two languages of the corpus, English and Swedish."""
    return "sv" if language == "en" else "en"


def data_lines(path: Path) -> list[str]:
    """Return the lines of the file `path`, without blank lines and lines that begin with `#`."""
    read = (line.rstrip("\n") for line in path.read_text(encoding="utf-8").splitlines())
    return [line for line in read if line.strip() and not line.startswith("#")]


@cache
def topics(language: Language, name: str) -> tuple[Topic, ...]:
    """Return the topics in the file `data/<language>/<name>.txt`. For `identity`, also add the question
    wordings in `clauses.txt` to them.
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
    """Parse the topic file `data/<language>/<name>.txt`. Each topic is a line `[topic]`, then lines that
    begin with `Q` (questions) or `A` (answers).
    """
    path = DATA / language / f"{name}.txt"
    found: dict[str, tuple[list[str], list[str]]] = {}
    current: tuple[list[str], list[str]] | None = None
    for line in data_lines(path):
        if line.startswith("["):
            current = found.setdefault(line.strip("[] "), ([], []))
        elif current is not None and line[:2] in {"Q ", "A "}:
            current[line[0] == "A"].append(line[2:].replace("\\n", "\n") if line[0] == "A" else line[2:])
        else:
            raise ValueError(
                f"{path.name}: the line {line!r} must be a [topic], or begin with Q or A and follow a [topic]"
            )
    return tuple(Topic(topic, tuple(asked), tuple(said)) for topic, (asked, said) in found.items())


@cache
def word_lists(language: Language) -> Mapping[str, tuple[str, ...]]:
    """Return the word lists in `data/<language>/lists.txt` by name. Entries are separated by commas, or by
    semicolons in the list `sentence`.
    """
    found: dict[str, tuple[str, ...]] = {}
    for line in data_lines(DATA / language / "lists.txt"):
        name, _, rest = line[1:].partition("] ")
        found[name] = tuple(entry.strip() for entry in rest.split(";" if name == "sentence" else ","))
    return found


@cache
def fills(language: Language) -> Mapping[str, FillSlot]:
    """Return, for each slot name in the templates of `language`, a function that draws a random word for the
    slot.
    """

    def drawer(words: Sequence[str]) -> FillSlot:
        return lambda rng: rng.choice(words)

    made: dict[str, FillSlot] = {name: drawer(words) for name, words in word_lists(language).items()}
    made["nonsense"] = lambda rng: nonsense(rng, language)
    made["gibberish"] = gibberish
    return made


@cache
def read_table(name: str, separator: str) -> tuple[tuple[str, ...], ...]:
    """Return the rows of the table `data/<name>.txt`, each split into cells at `separator`."""
    return tuple(
        tuple(cell.strip() for cell in line.split(separator)) for line in data_lines(DATA / f"{name}.txt")
    )


def pick(rng: random.Random, choices: Sequence[str]) -> str:
    """Return a random one of `choices`."""
    return choices[rng.randrange(len(choices))]
