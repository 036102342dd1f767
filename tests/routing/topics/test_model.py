from __future__ import annotations

import pytest

from routing.evaluate.texts import OWN
from routing.evaluate.topics import judge_topics
from routing.topics.features import features, stem
from routing.topics.model import AdapterTopic, TopicModel
from tests.timing import least_seconds

COOKING = AdapterTopic(
    "kitchen",
    ("how do I cook rice", "a recipe for tomato soup", "how long do I bake bread", "is raw egg safe"),
)
LAW = AdapterTopic(
    "lawyer", ("can my landlord keep my deposit", "how do I write a will", "what is a contract")
)
MODEL = TopicModel([COOKING, LAW])


@pytest.mark.parametrize(
    ("question", "topic"),
    [
        ("what can I use instead of buttermilk in my pancakes", "kitchen"),
        ("hur länge ska man koka potatis", "kitchen"),
        ("may my tenant sublet the apartment without permission", "lawyer"),
    ],
)
def test_a_question_that_no_example_has_words_of_goes_to_its_topic(question: str, topic: str) -> None:
    found = MODEL.match(question)
    assert found is not None
    assert (found.likeliest, found.confidence > 0.9) == (topic, True)


@pytest.mark.parametrize("question", ["who are you", "thanks!", "", "👍", "how old is the universe"])
def test_other_questions_are_below_certainty(question: str) -> None:
    found = MODEL.match(question)
    assert found is not None
    assert found.confidence < 0.9


def test_a_question_that_tells_nothing_says_so() -> None:
    nothing, something = MODEL.match("and then?"), MODEL.match("what about eggs")
    assert nothing is not None
    assert something is not None
    assert (nothing.told, something.told) == (False, True)


def test_a_topic_answers_in_its_languages_alone() -> None:
    model = TopicModel([AdapterTopic("kitchen", COOKING.examples, frozenset({"en"}))])
    assert model.match("how do I cook beans", "sv") is None
    assert model.match("how do I cook beans", "en") is not None
    assert model.match("how do I cook beans", None) is not None


def test_inflections_share_a_stem() -> None:
    assert stem("baking") == stem("baked") == stem("bakes") == stem("bake")
    assert stem("potatoes") == stem("potatoe")
    assert features(("the", "and", "of")).stems == {}


def test_figures_on_questions_that_no_example_holds() -> None:
    found = judge_topics(OWN, None)
    assert found["right topic"].of == 938
    assert found["right topic"].percent >= 77
    assert found["wrong topic"].percent <= 2
    assert found["other questions sent to one"].percent <= 8


def test_names_are_not_taken_for_the_words_that_they_are_spelled_like() -> None:
    assert "food" in features(("costa", "rice")).domains
    assert not features(("costa", "rica"), names=("costa", "rica")).domains
    assert "places" in features(("tokyo",), names=("tokyo",)).domains


def test_a_match_is_fast() -> None:
    topics = [AdapterTopic(f"t{number}", COOKING.examples) for number in range(5)]
    model = TopicModel(topics)
    question = "how do I make my tomato soup less salty"
    words = tuple(question.split())
    match, reading = least_seconds(lambda: model.match(question), lambda: features(words), turns=20)
    assert match < 10 * reading
