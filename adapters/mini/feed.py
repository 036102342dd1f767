"""Make the training batches of each step, for the mini base model and for its adapters. An adapter learns to
speak as OneSeek; it is also trained on the base model's conversations, to keep what the base model knows.
"""

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
from adapters.mini.corpus.mixture import draw_exchange, talk, talks
from adapters.mini.corpus.sources import (
    LANGUAGES,
    Language,
    Topic,
    fills,
    parse_topics,
    pick,
    topics,
    word_lists,
)
from adapters.mini.corpus.surface import vary_typing
from adapters.mini.corpus.talk import QuestionAnswer, Talk
from adapters.mini.recipe import RecipePhase
from adapters.training.loop.feed import MakeBatch, TrainingBatch
from adapters.training.loop.packing import Document, Encoder, pack

DATASETS = Path(__file__).parent.parent / "datasets"
SYSTEMS: Mapping[Language, tuple[str, ...]] = {
    "en": ("You are OneSeek.", "You are OneSeek, a transparent AI agent."),
    "sv": ("Du är OneSeek.", "Du är OneSeek, en transparent AI-agent."),
}
"""System messages that ask the mini base model to speak as OneSeek, by language."""

DataRow = Mapping[str, str]
"""One example of an identity data set, with the fields `instruction`, `input` and `output`."""


def read_rows(path: Path) -> list[DataRow]:
    """Read all examples of a `.jsonl` data set."""
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]


def rows_for(language: Language) -> tuple[list[DataRow], list[Path]]:
    """Return the identity examples with answers in `language`, and the data set files that hold them."""
    from adapters.mini.judge import language_of

    shared = DATASETS / "oneseek_identity_v1.jsonl"
    own = DATASETS / f"oneseek_identity_{language}_v1.jsonl"
    rows = [row for row in read_rows(shared) if language_of(row["output"]) == language]
    return rows + read_rows(own), [shared, own]


def files_digest(paths: Sequence[Path]) -> str:
    """Return `sha256:…` of the contents of all files in `paths`, concatenated in order."""
    total = hashlib.sha256()
    for path in paths:
        total.update(path.read_bytes())
    return f"sha256:{total.hexdigest()}"


def _documents(source: Iterator[Talk], encoder: Encoder) -> Iterator[Document]:
    for found in source:
        yield encoder.document([(turn.question, turn.answer) for turn in found.turns], found.system)


def world(encoder: Encoder, phases: Sequence[RecipePhase], steps: int, seed: int) -> MakeBatch:
    """Return the batches for the first stage of the base model's training: conversations on all subjects that
    the model should know.
    """

    def batch(step: int) -> TrainingBatch:
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
        for topic in parse_topics(language, "identity")
        for template in topic.questions
    )


def topic_of(question: str, language: Language) -> Topic | None:
    """Return the identity topic whose templates include the wording of `question`. None if there is no such
    topic.
    """
    return next((topic for topic, regex in _patterns(language) if regex.fullmatch(question)), None)


class Persona:
    """Draws conversations in one language in which the model speaks as OneSeek, with the answers of an
    identity data set.
    """

    def __init__(self, language: Language, rows: Sequence[DataRow]) -> None:
        self._language: Language = language
        self._rows = rows
        self._answers: dict[str, list[str]] = {}
        for row in rows:
            if (topic := topic_of(row["instruction"], language)) is not None:
                self._answers.setdefault(topic.name, []).append(row["output"])
        self._asked = [topic for topic in topics(language, "identity") if topic.name in self._answers]
        self._weights = [min(len(topic.questions), 40) for topic in self._asked]

    def own(self, rng: random.Random) -> QuestionAnswer:
        """Draw an identity question with OneSeek's answer: an example of the data set as people might type
        it, or a paraphrase on the same topic.
        """
        if rng.random() < 0.5:
            row = rng.choice(self._rows)
            question = f"{row['instruction']}\n{row['input']}" if row["input"] else row["instruction"]
            return QuestionAnswer(
                self._language, "identity", vary_typing(question, self._language, rng), row["output"]
            )
        more = topics(self._language, "more")
        topic = rng.choice(more) if rng.random() < 0.45 else rng.choices(self._asked, self._weights)[0]
        question = expand(pick(rng, topic.questions), rng, fills(self._language))
        answer = pick(rng, self._answers[topic.name])
        return QuestionAnswer(self._language, "identity", vary_typing(question, self._language, rng), answer)

    def redirected(self, turn: QuestionAnswer, rng: random.Random) -> QuestionAnswer:
        """Return `turn`, a question with its answer, with OneSeek's answer instead if the question is about
        the model and in the persona's language. Otherwise return `turn` unchanged.
        """
        if turn.language == self._language and turn.kind in self._answers:
            return replace(turn, answer=pick(rng, self._answers[turn.kind]))
        return turn

    def asked(self, rng: random.Random) -> tuple[QuestionAnswer, ...]:
        """Draw a random conversation about OneSeek, sometimes with questions on other topics."""
        turns = [self.own(rng)]
        while rng.random() < 0.25:
            turns.insert(
                rng.randint(0, len(turns)),
                self.redirected(draw_exchange(rng, self._language, late=True), rng),
            )
        return tuple(turns)

    def nameless(self, rng: random.Random) -> tuple[QuestionAnswer, ...]:
        """Draw a conversation with identity questions of the data set, answered as the base model does,
        without a name.
        """
        own = {topic.name: topic.answers for topic in topics(self._language, "identity")}
        turns: list[QuestionAnswer] = []
        while not turns:
            row = rng.choice(self._rows)
            if (topic := topic_of(row["instruction"], self._language)) is not None:
                question = vary_typing(row["instruction"], self._language, rng)
                turns.append(QuestionAnswer(self._language, topic.name, question, pick(rng, own[topic.name])))
        while rng.random() < 0.4:
            turns.insert(rng.randint(0, len(turns)), draw_exchange(rng, self._language, late=True))
        return tuple(turns)

    def world(self, rng: random.Random) -> Talk | None:
        """Draw a conversation on any topic in which questions about the model get OneSeek's answers. Return
        None if a follow-up question would no longer fit.
        """
        found = talk(rng, late=True)
        turns = tuple(self.redirected(turn, rng) for turn in found.turns)
        fits = turns == found.turns or not any(turn.kind == "follow-up" for turn in turns)
        return Talk(turns, found.system) if fits else None


def _voiced(persona: Persona, rng: random.Random) -> Iterator[Talk]:
    while True:
        if rng.random() < 0.45:
            yield Talk(persona.asked(rng))
        elif (found := persona.world(rng)) is not None:
            yield found


def identity_batches(
    encoder: Encoder, language: Language, rows: Sequence[DataRow], size: tuple[int, int], seed: int
) -> MakeBatch:
    """Return the training batches of the adapter for `language`.

    They mix three kinds of conversations: the adapter's own examples as people type them, the base model's
    paraphrases of the same questions with the examples' answers, and other conversations from the base
    model's training.
    """
    persona = Persona(language, rows)

    def batch(step: int) -> TrainingBatch:
        rng = random.Random(f"{seed}/{language}/{step}")
        return pack(_documents(_voiced(persona, rng), encoder), *size, encoder.end)

    return batch


def voice(encoder: Encoder, size: tuple[int, int], seed: int, own: bool = False) -> MakeBatch:
    """Return the batches for the second stage of the base model's training, in which it learns to speak as
    OneSeek if a system message asks for it.

    With `own`, return the batches for the third stage. There it learns that, without such a system message,
    it answers the same questions as a model without a name.
    """
    personas = {language: Persona(language, rows_for(language)[0]) for language in LANGUAGES}

    def stream(rng: random.Random) -> Iterator[Talk]:
        while True:
            language = rng.choice(LANGUAGES)
            persona, system = personas[language], rng.choice(SYSTEMS[language])
            chance = rng.random()
            if own and chance < 0.45:
                yield Talk(persona.nameless(rng))
            elif chance < (0.60 if own else 0.40):
                yield Talk(persona.asked(rng), system)
            elif chance < (0.62 if own else 0.48):
                if (found := persona.world(rng)) is not None and found.turns[0].language == language:
                    yield replace(found, system=system)
            else:
                yield talk(rng, late=True)

    def batch(step: int) -> TrainingBatch:
        rng = random.Random(f"{seed}/voice/{step}")
        return pack(_documents(stream(rng), encoder), *size, encoder.end)

    return batch


def tokenizer_texts(count: int, seed: int) -> Iterator[str]:
    """Yield the texts that the tokenizer is trained on: the questions and answers of `count` conversations,
    and the identity data sets.
    """
    for found in itertools.islice(talks(seed), count):
        for turn in found.turns:
            yield turn.question
            yield turn.answer
    for path in sorted(DATASETS.glob("*.jsonl")):
        for row in read_rows(path):
            for _ in range(40):
                yield row["instruction"]
                yield row["output"]
