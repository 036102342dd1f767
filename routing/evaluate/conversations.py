"""Build conversations from messages of known language. A fifth of the messages are junk such as "ok", and
some conversations switch languages.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

from routing.evaluate.judge import Judge, Proportion
from routing.evaluate.texts import LabelledText

TURNS, JUNK_SHARE = 5, 0.2
JUNK = ("ok", "👍", "42", "hmm", "...", "haha", "?", "🙂🙂", "https://example.com/a", "1", "ok ok", "!!")
"""Messages that give no evidence of a language."""
MOST = 400
"""Maximum number of conversations of each kind that are evaluated."""


def steady(texts: Sequence[str], chance: random.Random) -> Iterator[tuple[str, ...]]:
    """Yield conversations in one language. About a fifth of the messages are junk, but never the first."""
    for _ in range(MOST):
        turns = chance.sample(texts, TURNS)
        yield tuple(
            chance.choice(JUNK) if number and chance.random() < JUNK_SHARE else turn
            for number, turn in enumerate(turns)
        )


def switching(
    before: Sequence[str], after: Sequence[str], chance: random.Random
) -> Iterator[tuple[str, ...]]:
    """Yield conversations with one to four messages in one language, and then a question in another."""
    for _ in range(MOST):
        yield (*chance.sample(before, chance.randint(1, TURNS - 1)), chance.choice(after))


def judge_conversations(judge: Judge, texts: Sequence[LabelledText]) -> dict[str, Proportion]:
    """Return how often later messages keep the adapter of their language, and how often a question after a
    language switch gets the new language's adapter.
    """
    of = {code: [text.text for text in texts if text.language == code] for code in ("sv", "en")}
    if min(map(len, of.values())) < TURNS:
        return {}
    found: dict[str, Proportion] = {}
    for code, other in (("sv", "en"), ("en", "sv")):
        chance = random.Random(code)
        stayed = [
            judge.adapter(*turns[: number + 1]) == code
            for turns in steady(of[code], chance)
            for number in range(1, TURNS)
        ]
        found[f"{code} turns 2 to 5"] = Proportion(sum(stayed), len(stayed))
        followed = [judge.adapter(*turns) == other for turns in switching(of[code], of[other], chance)]
        found[f"first question after {code} to {other}"] = Proportion(sum(followed), len(followed))
    return found
