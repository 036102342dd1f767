"""Draw training questions from the topic files: about the model itself, small talk, and subjects that the
mini base model does not know.
"""

from __future__ import annotations

import random
from functools import cache

from adapters.mini.corpus.arithmetic import too_big
from adapters.mini.corpus.grammar import expand
from adapters.mini.corpus.sources import DATA, LANGUAGES, Language, Topic, data_lines, fills, pick, topics
from adapters.mini.corpus.talk import QuestionAnswer

_BOTH = (
    "I only know English and Swedish. Jag kan bara engelska och svenska.",
    "English and Swedish are all I know. Engelska och svenska är allt jag kan.",
)


def from_topic(topic: Topic, rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question of `topic` and one of the topic's answers."""
    asked = expand(pick(rng, topic.questions), rng, fills(language))
    return QuestionAnswer(language, topic.name, asked[:1].upper() + asked[1:], pick(rng, topic.answers))


@cache
def _weights(language: Language, name: str) -> tuple[float, ...]:
    """Return the weights for drawing topics. A topic with more questions and answers gets a higher weight,
    but less than proportionally.
    """
    return tuple(
        3 + min(len(topic.questions), 40) + 2 * len(topic.answers) for topic in topics(language, name)
    )


def identity_exchange(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question about the model itself, and an answer of the base model, which has no name."""
    found = topics(language, "identity")
    return from_topic(rng.choices(found, _weights(language, "identity"))[0], rng, language)


def identity_again(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question about the model itself in one of the additional wordings, which only the later phases
    of the training use.
    """
    answers = {topic.name: topic.answers for topic in topics(language, "identity")}
    topic = rng.choice(topics(language, "more"))
    return from_topic(Topic(topic.name, topic.questions, answers[topic.name]), rng, language)


def smalltalk(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw an exchange of small talk: a greeting, thanks, a feeling, a joke or a poem."""
    found = topics(language, "smalltalk")
    return from_topic(rng.choices(found, _weights(language, "smalltalk"))[0], rng, language)


def outside(rng: random.Random, language: Language) -> QuestionAnswer:
    """Draw a question about something that the mini base model does not know, with an answer that says so."""
    beyond, garbled = topics(language, "outside")
    if rng.random() < 0.06:
        return QuestionAnswer(language, "outside", too_big(rng, language), pick(rng, beyond.answers))
    if rng.random() < 0.03:
        return from_topic(garbled, rng, language)
    weights = [
        4 if "{task}" in q else 10 if "{sentence}" in q else 3 if "{nonsense}" in q else 2
        for q in beyond.questions
    ]
    asked = expand(rng.choices(beyond.questions, weights)[0], rng, fills(language))
    return QuestionAnswer(language, "outside", asked[:1].upper() + asked[1:], pick(rng, beyond.answers))


def foreign(rng: random.Random) -> QuestionAnswer:
    """Draw a sentence in a third language, with the answer, in English and Swedish, that the model knows only
    these two.
    """
    return QuestionAnswer(
        rng.choice(LANGUAGES), "foreign", pick(rng, data_lines(DATA / "foreign.txt")), pick(rng, _BOTH)
    )
