"""Extract features of a question's topic: the stems of its words, and the domains that the words belong to.

Domains are hand-written lists of English and Swedish words on one subject (`domains/`). With them, a question
about buttermilk counts as cooking, even if no example of the topic contains that word.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from routing.evidence.listed import listed_words
from routing.lists import read_list

_PLURALS = ("arnas", "ernas", "ornas", "arna", "erna", "orna", "ies", "'s", "s")
_SUFFIXES = (
    "ningar",
    "ation",
    "ning",
    "ande",
    "ings",
    "ing",
    "ade",
    "ed",
    "en",
    "et",
    "ar",
    "or",
    "er",
    "ly",
)
_SHORTEST_STEM = 3
_COMMON, _RARE = -6.5, -9.0
"""log(p) at and above which a word is too common to show a topic (weight 0), and at and below which it has
the full weight 1.
"""
_FULL = 1.5
"""Summed weight of a question's words in a domain at which the domain's weight reaches its maximum."""
_UNKNOWN = -12.0
"""log(p) of a word that is in no list."""


@dataclass(frozen=True, slots=True)
class Features:
    """The features of one question, by which it is compared with the topics' example questions."""

    stems: Mapping[str, float]
    """Maps each stem to the weight of its evidence for a topic, 0 to 1."""
    domains: Mapping[str, float]
    """Maps each domain to the summed weight of its words in the question, at most 1.5 (`_FULL`). A word in
    several domains is divided among them.
    """
    words: Mapping[str, float]
    """Maps each word to the weight of its evidence for a topic, above 0."""


def stem(word: str) -> str:
    """Remove English or Swedish inflection. Related words share a stem, and a few unrelated ones do too."""
    for suffixes in (_PLURALS, _SUFFIXES):
        for suffix in suffixes:
            if (
                word.endswith(suffix)
                and len(word) - len(suffix) >= _SHORTEST_STEM
                and not word.endswith("ss")
            ):
                word = word[: -len(suffix)]
                break
    if len(word) > _SHORTEST_STEM and word[-1] == word[-2]:
        word = word[:-1]
    return word[:-1] if len(word) > _SHORTEST_STEM and word[-1] in "eayi" else word


def features(words: Sequence[str], names: Collection[str] = ()) -> Features:
    """Extract features of lower-case `words`, some of which are `names`. Takes time linear in the number of
    words.
    """
    stems: dict[str, float] = {}
    domains: dict[str, float] = {}
    telling: dict[str, float] = {}
    known = _domains()
    for word in dict.fromkeys(words):
        weight = weight_of(word)
        found = word if word in names else stem(word)
        among = known.get(word) or known.get(f"{found}-", ())
        if weight > 0:
            telling[word] = weight
            stems[found] = max(stems.get(found, 0.0), weight)
        for domain in among:
            domains[domain] = min(_FULL, domains.get(domain, 0.0) + weight / len(among))
    return Features(*map(MappingProxyType[str, float], (stems, domains, telling)))


def weight_of(word: str) -> float:
    """Return a word's weight, 0 to 1: the rarer it is in the language that uses it most, the higher."""
    return _weights()[listed_words().rows.get(word, 0)]


@cache
def _weights() -> Sequence[float]:
    """Compute the weight of each row number of the word lists. Index 0 is the weight of words that are not
    listed.
    """
    listed = listed_words()
    commonest: NDArray[np.float64] = np.full(len(listed.rows) + 1, _UNKNOWN)
    for code in ("en", "sv", "da", "no", "de", "fi", "nl"):
        rows, logarithms = listed.languages[code]
        commonest[rows] = np.maximum(commonest[rows], logarithms)
    weights: list[float] = np.clip((_COMMON - commonest) / (_COMMON - _RARE), 0.0, 1.0).tolist()
    return weights


@cache
def background(found: str) -> float:
    """Return the probability that a question on any subject has a word with the stem `found`."""
    return _stem_shares().get(found, 2e-4)


@cache
def _stem_shares() -> Mapping[str, float]:
    """Estimate, for each stem, the fraction of questions of eight words that contain it."""
    listed = listed_words()
    words = list(listed.rows)
    shares: dict[str, float] = {}
    for code in ("en", "sv"):
        own: dict[str, float] = {}
        rows, logarithms = listed.languages[code]
        common = logarithms > _UNKNOWN
        for row, share in zip(rows[common].tolist(), 8 * np.exp(logarithms[common]), strict=True):
            found = stem(words[row - 1])
            own[found] = own.get(found, 0.0) + float(share)
        for found, share in own.items():
            shares[found] = max(shares.get(found, 0.0), share)
    return {found: min(0.5, max(2e-4, share)) for found, share in shares.items()}


@cache
def _domains() -> Mapping[str, tuple[str, ...]]:
    """Map each word of the domain lists to the domains whose lists contain it. The map also has each word's
    stem, written with a hyphen at its end.
    """
    found: dict[str, dict[str, None]] = {}
    for file in sorted(files("routing").joinpath("topics", "domains").iterdir(), key=lambda one: one.name):
        domain = file.name.removesuffix(".txt")
        for word in read_list("topics", "domains", domain):
            for form in (word, f"{stem(word)}-"):
                found.setdefault(form, {})[domain] = None
    return {one: tuple(domains) for one, domains in found.items()}
