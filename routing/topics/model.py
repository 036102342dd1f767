"""Score a question against the example questions of each topic, and against other subjects.

Three kinds of evidence are added: words of the examples (Bernoulli naive Bayes against a background), the
domains of words, and the similarity of words to those of the examples. A new topic needs no training, because
its examples are only counted. The weights of the three kinds of evidence were fitted once, on other
questions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from routing.reading.clean import clean
from routing.topics.features import Features, background, features
from routing.topics.space import load_space

_TRUST = 0.5
"""Assumed fraction of a topic's words that occur in its examples."""
_MOST = 3.0
"""Maximum evidence of one word for a topic, in nats."""
_WORD, _STRANGER, _DOMAIN, _NEAR = 0.58, 0.66, 1.59, 0.83
"""Weights of four kinds of evidence: a word that is in the examples, a word that is not, a domain, and a
word's similarity to words of the examples.
"""
_DOMAIN_SHARE = 0.03
"""Assumed fraction of all questions that contain words of a given domain."""
_DOMAIN_FLOOR = -0.5
"""Evidence, in nats, for a topic from a domain in the question that the topic's examples lack."""
_ELSE = 1.5
"""Prior log-odds, in nats, that a question is about another subject rather than a given topic."""
LIMIT = 300
"""Maximum number of characters of a question that are read."""


@dataclass(frozen=True, slots=True)
class AdapterTopic:
    """The topic that an adapter answers, given by example questions."""

    alias: str
    examples: tuple[str, ...]
    """Example questions of the topic; at least one."""
    languages: frozenset[str] = frozenset()
    """Codes of the languages in which the adapter answers. Empty means any language."""


@dataclass(frozen=True, slots=True)
class _Counted:
    topic: AdapterTopic
    words: Mapping[str, float]
    """Maps each stem in the examples to the log ratio of its probability in the topic to that in any
    question.
    """
    domains: Mapping[str, float]
    """Maps each domain in the examples to the log ratio of its probability in the topic to that in any
    question.
    """
    near: NDArray[np.float32]
    """Array [row of the word vectors]: log ratio of the probability that a question on this topic has a word
    at that row, to the probability for any question.
    """


@dataclass(frozen=True, slots=True)
class TopicMatch:
    """The probability of each topic for a question."""

    likeliest: str
    """Alias of the adapter of the most likely topic."""
    confidence: float
    """Probability of the most likely topic."""
    scores: Mapping[str, float]
    """Maps each topic to its probability, likeliest first. The rest up to 1 is the probability of another
    subject.
    """
    told: bool
    """True if any word of the question is evidence for a topic."""


class TopicModel:
    """Recognises the topics of a server's adapters. Immutable, so any thread may use it."""

    def __init__(self, topics: Sequence[AdapterTopic]) -> None:
        """Count the words and domains in the examples of `topics`, which takes about 20 ms for each topic."""
        self._counted = [_count(topic) for topic in topics]

    def match(self, question: str, language: str | None = None) -> TopicMatch | None:
        """Compute the probability of each topic whose adapter answers in `language`. Never raises.

        Returns None if no topic has such an adapter. Takes time linear in the number of topics and of the
        words in the question, of which at most 300 characters are read (`LIMIT`).
        """
        asked = [one for one in self._counted if _answers(one.topic, language)]
        if not asked:
            return None
        found = _read(question)
        rows, weights = load_space().places(found.words)
        scores = [_score(one, found) + _NEAR * float(one.near[rows] @ weights) - _ELSE for one in asked]
        most = max(0.0, *scores)
        shares = [math.exp(score - most) for score in scores]
        total = sum(shares) + math.exp(-most)
        ranked = sorted(zip(asked, shares, strict=True), key=lambda item: -item[1])
        named = {one.topic.alias: share / total for one, share in ranked}
        likeliest, confidence = next(iter(named.items()))
        told = bool(found.domains) or any(not one.words.keys().isdisjoint(found.stems) for one in asked)
        return TopicMatch(likeliest, confidence, MappingProxyType(named), told)


def _answers(topic: AdapterTopic, language: str | None) -> bool:
    return language is None or not topic.languages or language in topic.languages


def _count(topic: AdapterTopic) -> _Counted:
    read = [_read(example) for example in topic.examples]
    near = load_space().ratios([example.words for example in read])
    return _Counted(topic, _word_ratios(read), _domain_ratios(read), near)


def _score(topic: _Counted, found: Features) -> float:
    words, domains = topic.words, topic.domains
    score = 0.0
    for word, weight in found.stems.items():
        ratio = words.get(word)
        if ratio is None:
            score -= weight * _STRANGER
        else:
            score += weight * _WORD * ratio
    for domain, weight in found.domains.items():
        score += weight * _DOMAIN * domains.get(domain, _DOMAIN_FLOOR)
    return score


def _read(question: str) -> Features:
    words = clean(question, LIMIT).words
    return features(words.all, words.names)


def _word_ratios(examples: Sequence[Features]) -> dict[str, float]:
    """Compute, for each stem, the log ratio of its probability in the topic to that in any question."""
    counts: dict[str, int] = {}
    for example in examples:
        for word in example.stems:
            counts[word] = counts.get(word, 0) + 1
    return {
        word: min(_MOST, math.log(1 - _TRUST + _TRUST * count / len(examples) / background(word)))
        for word, count in counts.items()
    }


def _domain_ratios(examples: Sequence[Features]) -> dict[str, float]:
    counts: dict[str, float] = {}
    for example in examples:
        for domain, weight in example.domains.items():
            counts[domain] = counts.get(domain, 0.0) + weight
    most = 1 + len(examples)
    return {
        domain: max(_DOMAIN_FLOOR, math.log((count + _DOMAIN_SHARE) / most / _DOMAIN_SHARE))
        for domain, count in counts.items()
    }
