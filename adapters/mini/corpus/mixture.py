"""Mix the kinds of training conversations for the mini base model, each kind in a fixed proportion."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import replace

from adapters.mini.corpus import arithmetic, calendar, dialogue, knowledge, topical, words
from adapters.mini.corpus.sources import DATA, LANGUAGES, Language, data_lines, other
from adapters.mini.corpus.surface import vary_typing
from adapters.mini.corpus.talk import QuestionAnswer, Talk

_KINDS = {
    topical.outside: 42,
    topical.identity_exchange: 20,
    topical.smalltalk: 15,
    arithmetic.calculate: 9,
    arithmetic.count: 4,
    words.translation: 9,
    words.opposite: 3,
    knowledge.fact: 6,
    knowledge.definition: 6,
    knowledge.capital: 4,
    calendar.calendar: 4,
}
_LATE = _KINDS | {topical.identity_exchange: 18, topical.identity_again: 16, arithmetic.calculate: 24}
_EXACT = frozenset({"introduction", "translation", "follow-up", "opposite"})


def draw_exchange(rng: random.Random, language: Language, late: bool = False) -> QuestionAnswer:
    """Draw one question and answer of a random kind. With `late`, as in the later phases of the training,
    calculations and questions about the model are more frequent.
    """
    kinds = _LATE if late else _KINDS
    return rng.choices(list(kinds), list(kinds.values()))[0](rng, language)


def _turns(rng: random.Random, language: Language, most: int, late: bool) -> tuple[QuestionAnswer, ...]:
    shape = rng.random()
    if shape < 0.02:
        return (topical.foreign(rng),)
    if shape < 0.70:
        return (draw_exchange(rng, language, late),)
    if shape < 0.84:
        return dialogue.chain(rng, language)
    turns: tuple[QuestionAnswer, ...] = ()
    for _ in range(rng.randint(2, most)):
        if rng.random() < 0.06:
            language = other(language)
        turns += (
            dialogue.chain(rng, language) if rng.random() < 0.3 else (draw_exchange(rng, language, late),)
        )
    return turns


def talk(rng: random.Random, most: int = 4, late: bool = False) -> Talk:
    """Draw one random conversation, with questions varied as people type them. A long conversation has 2 to
    `most` parts; a part is one exchange or a few connected ones.
    """
    language = rng.choice(LANGUAGES)
    turns = tuple(
        turn
        if turn.kind == "foreign"
        else replace(
            turn,
            question=vary_typing(
                turn.question, turn.language, rng, slips=turn.kind not in _EXACT or rng.random() < 0.15
            ),
        )
        for turn in _turns(rng, language, most, late)
    )
    system = rng.choice(data_lines(DATA / language / "system.txt")) if rng.random() < 0.05 else ""
    return Talk(turns, system)


def talks(seed: int, most: int = 4, late: bool = False) -> Iterator[Talk]:
    """Yield random conversations without end. The same `seed` always gives the same conversations."""
    rng = random.Random(seed)
    while True:
        yield talk(rng, most, late)
