"""Grade examples with an optional judge: a model that replies with one digit from 1 to 5. Any other reply is
not a grade.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping

_GRADE = re.compile(r"\s*([1-5])(?:\s*/\s*5)?\s*\.?\s*")
_ASKED: Mapping[str, str] = {
    "sv": "Bedöm om svaret nedan är riktigt, besvarar frågan och är skrivet på god svenska. Svara med en "
    "enda siffra och inget mer: 1 är oanvändbart, 3 har brister, 5 är utmärkt.\n\nFråga: {prompt}\n\n"
    "Svar: {answer}\n\nBetyg:",
    "en": "Judge whether the answer below is right, answers the question and is written in good English. "
    "Reply with a single digit and nothing else: 1 is useless, 3 has faults, 5 is excellent.\n\n"
    "Question: {prompt}\n\nAnswer: {answer}\n\nGrade:",
}
_OTHER = (
    "Judge whether the answer below is right, answers the question and is well written in the language of "
    "the question. Reply with a single digit and nothing else: 1 is useless, 3 has faults, 5 is excellent."
    "\n\nQuestion: {prompt}\n\nAnswer: {answer}\n\nGrade:"
)
LONGEST = 8
"""Maximum number of tokens in the judge's reply."""
JUDGED = "judge/"
"""Prefix of the journal keys under which the judge's replies are stored."""


def judge_prompt(prompt: str, answer: str, language: str) -> str:
    """Return the prompt that asks the judge to grade one example, a prompt and its answer."""
    return _ASKED.get(language, _OTHER).format(prompt=prompt, answer=answer)


def judge_key(prompt: str, answer: str) -> str:
    """Return the journal key of the judge's reply about one example."""
    return JUDGED + hashlib.sha256(f"{prompt}\0{answer}".encode()).hexdigest()[:24]


def grade(said: str) -> int | None:
    """Return the grade in the judge's reply `said`, from 1 to 5. None unless the reply is one digit, such as
    `4`, `4.` or `4/5`.
    """
    found = _GRADE.fullmatch(said)
    return int(found[1]) if found else None
