"""What goes into each training step: the world for the base; identity and a replay of it for an adapter."""

from __future__ import annotations

import hashlib
import itertools
import json
import random
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path

from adapters.mini.corpus.grammar import expand, pattern
from adapters.mini.corpus.mixture import exchange, talk, talks
from adapters.mini.corpus.sources import Language, Topic, fills, listed, pick, topics, word_lists
from adapters.mini.corpus.surface import typed
from adapters.mini.corpus.talk import Exchange, Talk
from adapters.mini.recipe import Phase
from adapters.training.packing import Batch, Batches, Document, Encoder, pack

DATASETS = Path(__file__).parent.parent / "datasets"
Row = Mapping[str, str]
"""One line of an identity data set: `instruction`, `input`, `output`."""


def read_rows(path: Path) -> list[Row]:
    """The rows of a `.jsonl` data set."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rows_for(language: Language) -> tuple[list[Row], list[Path]]:
    """The identity rows in `language`, and the files they come from."""
    from adapters.mini.judge import language_of

    shared = DATASETS / "oneseek_identity_v1.jsonl"
    own = DATASETS / f"oneseek_identity_{language}_v1.jsonl"
    rows = [row for row in read_rows(shared) if language_of(row["output"]) == language]
    return rows + read_rows(own), [shared, own]


def digest(paths: Sequence[Path]) -> str:
    """`sha256:` over the files' bytes, one after the other."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return f"sha256:{total.hexdigest()}"


def _documents(source: Iterator[Talk], encoder: Encoder) -> Iterator[Document]:
    for found in source:
        yield encoder.document([(turn.question, turn.answer) for turn in found.turns], found.system)


def world(encoder: Encoder, phases: Sequence[Phase], steps: int, seed: int) -> Batches:
    """The base's batches."""

    def batch(step: int) -> Batch:
        phase = next(phase for phase in phases if step < phase.until * steps or phase is phases[-1])
        documents = _documents(talks(seed * 1_000_003 + step, phase.parts, phase.late), encoder)
        return pack(documents, phase.rows, phase.length, encoder.end)

    return batch


@cache
def _patterns(language: Language) -> tuple[tuple[Topic, re.Pattern[str]], ...]:
    lists = {
        name: "(?:" + "|".join(map(re.escape, words)) + ")" for name, words in word_lists(language).items()
    }
    return tuple(
        (topic, re.compile(pattern(template, lists) + "[?.!]*", re.IGNORECASE))
        for topic in listed(language, "identity")
        for template in topic.questions
    )


def topic_of(question: str, language: Language) -> Topic | None:
    """The identity topic of which some listed template can become `question`."""
    return next((topic for topic, regex in _patterns(language) if regex.fullmatch(question)), None)


def identity(
    encoder: Encoder, language: Language, rows: Sequence[Row], size: tuple[int, int], seed: int
) -> Batches:
    """An adapter's batches: its rows as they are typed, the base's paraphrases of the same questions answered
    with the rows' answers, and the rest of the world as before.
    """
    answers: dict[str, list[str]] = {}
    for row in rows:
        if (topic := topic_of(row["instruction"], language)) is not None:
            answers.setdefault(topic.name, []).append(row["output"])
    asked = [topic for topic in topics(language, "identity") if topic.name in answers]
    weights = [min(len(topic.questions), 40) for topic in asked]
    more = topics(language, "more")

    def own(rng: random.Random) -> Exchange:
        if rng.random() < 0.5:
            row = rng.choice(rows)
            question = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            return Exchange(language, "identity", typed(question, language, rng), row["output"])
        topic = rng.choice(more) if rng.random() < 0.45 else rng.choices(asked, weights)[0]
        question = expand(pick(rng, topic.questions), rng, fills(language))
        return Exchange(language, "identity", typed(question, language, rng), pick(rng, answers[topic.name]))

    def redirected(turn: Exchange, rng: random.Random) -> Exchange:
        if turn.language == language and turn.kind in answers:
            return replace(turn, answer=pick(rng, answers[turn.kind]))
        return turn

    def stream(rng: random.Random) -> Iterator[Talk]:
        while True:
            if rng.random() < 0.45:
                turns = [own(rng)]
                while rng.random() < 0.25:
                    before = redirected(exchange(rng, language, late=True), rng)
                    turns.insert(rng.randint(0, len(turns)), before)
                yield Talk(tuple(turns))
            else:
                found = talk(rng, late=True)
                before = [redirected(turn, rng) for turn in found.turns]
                same = all(a is b for a, b in zip(before, found.turns, strict=True))
                if same or not any(turn.kind == "follow-up" for turn in before):
                    yield Talk(tuple(before), found.system)

    def batch(step: int) -> Batch:
        rng = random.Random(f"{seed}/{language}/{step}")
        return pack(_documents(stream(rng), encoder), *size, encoder.end)

    return batch


def sample_texts(count: int, seed: int) -> Iterator[str]:
    """Questions and answers of `count` conversations, and the identity rows, for the tokenizer."""
    for found in itertools.islice(talks(seed), count):
        for turn in found.turns:
            yield turn.question
            yield turn.answer
    for path in sorted(DATASETS.glob("*.jsonl")):
        for row in read_rows(path):
            for _ in range(40):
                yield row["instruction"]
                yield row["output"]
