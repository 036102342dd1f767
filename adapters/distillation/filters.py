"""Filters that drop a teacher's bad answers before they become training examples.

Each filter is a pure function for one reason. It gets the prompt with the answer, and the rules, and returns
True to drop the answer. If several filters match, the answer counts for the first one only.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from adapters.datasets.check import TOLD_BY
from adapters.datasets.minhash import normal, shingles
from adapters.distillation.options import DistillOptions
from adapters.distillation.refusals import refuses, speaks_as_another
from adapters.evaluation.judge import LanguageOf, claims_identity, words

_CONTROL = re.compile(r"\ufffd|\[/?INST\]|</?s>|<\|[a-zA-Z_]+\|>|<0x[0-9A-F]{2}>|<unk>|<pad>")
_NO_TEXT = ("Cc", "Cs", "Co")
"""Unicode categories of characters that never belong in an answer: control, surrogate and private use."""
_LONGEST_PARAPHRASE = 3
_FEW_WORDS = 6


@dataclass(frozen=True, slots=True)
class Candidate:
    """A prompt and the teacher's answer, before the filters decide whether to keep the pair."""

    prompt: str
    answer: str
    ended: bool
    """True if the teacher ended the answer itself; False if the token limit cut it off."""


@dataclass(frozen=True, slots=True)
class Rules:
    """The criteria of the filters: the wanted language, a language detector, and the limits in the
    options.
    """

    language: str
    language_of: LanguageOf
    options: DistillOptions


Filter = Callable[[Candidate, Rules], bool]


def _empty(found: Candidate, _: Rules) -> bool:
    return not found.answer.strip()


def _unfinished(found: Candidate, _: Rules) -> bool:
    return not found.ended


def _stray(found: Candidate, _: Rules) -> bool:
    return _CONTROL.search(found.answer) is not None or any(
        unicodedata.category(letter) in ("Cc", "Cs", "Co") and letter not in "\n\t\r"
        for letter in found.answer
    )


def _short(found: Candidate, rules: Rules) -> bool:
    return len(found.answer.strip()) < rules.options.least_characters


def _long(found: Candidate, rules: Rules) -> bool:
    return len(found.answer.strip()) > rules.options.most_characters


def _language(found: Candidate, rules: Rules) -> bool:
    return rules.language_of(found.answer.strip()[:TOLD_BY]) not in (rules.language, None)


def _refusal(found: Candidate, _: Rules) -> bool:
    return refuses(found.answer.strip())


def _foreign(found: Candidate, _: Rules) -> bool:
    return speaks_as_another(found.answer)


def _copy(found: Candidate, rules: Rules) -> bool:
    if normal(found.answer).strip(" ?!.:\"'") == normal(found.prompt).strip(" ?!.:\"'"):
        return True
    said = shingles(found.answer)
    shared = len(np.intersect1d(said, shingles(found.prompt), assume_unique=True))
    return shared / len(said) > rules.options.most_copied


def _loop(found: Candidate, rules: Rules) -> bool:
    said = words(found.answer)
    triples = list(zip(said, said[1:], said[2:], strict=False))
    if not triples:
        return False
    return 1 - len(set(triples)) / len(triples) > rules.options.most_repeated


FILTERS: Mapping[str, Filter] = {
    "empty": _empty,
    "unfinished": _unfinished,
    "stray tokens": _stray,
    "short": _short,
    "long": _long,
    "language": _language,
    "refusal": _refusal,
    "another model's name": _foreign,
    "copy of the prompt": _copy,
    "repeats itself": _loop,
}
"""Maps each reason for dropping an answer to its filter function. The filters run in this order."""


def _kind(found: Candidate, _: Rules) -> bool:
    """True if the prompt ends in a question mark and the paraphrase does not, or the other way round."""
    return found.prompt.rstrip().endswith("?") != found.answer.rstrip().endswith("?")


def _answered(found: Candidate, rules: Rules) -> bool:
    """True if the paraphrase says that it is OneSeek although the prompt does not. Small teachers often
    answer a prompt instead of rewording it.
    """
    return claims_identity(found.answer, rules.language) and not claims_identity(found.prompt, rules.language)


def _too_long(found: Candidate, _: Rules) -> bool:
    most = _LONGEST_PARAPHRASE * max(_FEW_WORDS, len(words(found.prompt)))
    return len(words(found.answer)) > most or "\n" in found.answer.strip()


PARAPHRASE_FILTERS: Mapping[str, Filter] = {
    "empty": _empty,
    "unfinished": _unfinished,
    "stray tokens": _stray,
    "long": _too_long,
    "answered": _answered,
    "not of its kind": _kind,
    "language": _language,
    "refusal": _refusal,
    "another model's name": _foreign,
}
"""Maps each reason for dropping a paraphrase of a prompt to its filter function. The filters run in this
order.
"""


def fault(found: Candidate, rules: Rules, filters: Mapping[str, Filter] = FILTERS) -> str | None:
    """Return the reason of the first of `filters` that drops the answer `found`; None if all keep it."""
    return next((name for name, drops in filters.items() if drops(found, rules)), None)
