from __future__ import annotations

from dataclasses import replace

import pytest

from routing.detect import ProfileDetector
from routing.route import Reason, RouteQuery, Router, UnknownNameError
from routing.selection import SelectionError
from routing.settings import LanguageRow, RoutingSettings
from routing.topics.model import AdapterTopic, TopicModel

SV, EN = "oneseek-sv", "oneseek-en"


class Registry:
    def __init__(self, *adapters: str) -> None:
        self.adapters = adapters or (SV, EN, "sv", "en", f"{SV}@v1.1")

    def is_adapter(self, name: str) -> bool:
        return name.lower() in self.adapters

    def is_base(self, name: str) -> bool:
        return name.lower() in ("base", "oneseek-mini")

    def has_base(self, name: str) -> bool:
        return self.is_base(name)


ROWS = (LanguageRow("en", EN), LanguageRow("sv", SV))
DETECTOR = ProfileDetector(RoutingSettings(languages=ROWS))


def router(
    *,
    undecided: str = "likeliest",
    unsupported: str = "base",
    default: str | None = None,
    sure: float = 0.9,
    without_evidence: str | None = None,
) -> Router:
    settings = RoutingSettings(
        languages=ROWS,
        undecided=undecided,  # pyright: ignore[reportArgumentType] (parametrised below)
        unsupported=unsupported,  # pyright: ignore[reportArgumentType]
        default=default,
        sure=sure,
        without_evidence=without_evidence,
    )
    return Router(settings, DETECTOR)


def test_a_topic_answers_within_the_language() -> None:
    kitchen = AdapterTopic(
        "kitchen",
        ("how do I cook rice", "a recipe for tomato soup", "how long do I bake bread"),
        frozenset({"en"}),
    )
    using = Router(RoutingSettings(languages=ROWS), DETECTOR, TopicModel([kitchen]))
    registry = Registry("kitchen", SV, EN)
    asked = {
        ("what can I use instead of butter in my pancakes",): ("kitchen", Reason.TOPIC),
        ("what can I use instead of butter in my pancakes", "and then?"): ("kitchen", Reason.TOPIC),
        ("Who are you?",): (EN, Reason.LANGUAGE),
        ("vad kan jag ha i stället för smör i mina pannkakor",): (SV, Reason.LANGUAGE),
    }
    for turns, (name, reason) in asked.items():
        route = using.decide(RouteQuery(turns=turns), registry)
        assert (route.target, route.reason) == (((name, 1.0),), reason), turns
    named = using.decide(RouteQuery(model=SV, turns=("how do I bake bread",)), registry)
    assert (named.reason, named.topic) == (Reason.MODEL, None)
    gone = using.decide(RouteQuery(turns=("how do I bake bread",)), Registry(SV, EN))
    assert gone.reason is Reason.LANGUAGE


def decide(
    question: RouteQuery, using: Router | None = None, registry: Registry | None = None
) -> tuple[object, Reason]:
    route = (using or router()).decide(question, registry or Registry())
    return route.target, route.reason


def test_the_header_wins_over_everything() -> None:
    question = RouteQuery(header="sv", model=EN, turns=("Who are you?",), accept_language="en")
    route = router().decide(question, Registry())
    assert (route.target, route.reason, route.language) == ((("sv", 1.0),), Reason.HEADER, "en")


@pytest.mark.parametrize(
    ("header", "target"),
    [("base", ()), (f"{SV}@v1.1", ((f"{SV}@v1.1", 1.0),)), ("sv=0.7,en=0.3", (("sv", 0.7), ("en", 0.3)))],
)
def test_the_header_chooses(header: str, target: object) -> None:
    assert decide(RouteQuery(header=header, turns=("Who are you?",))) == (target, Reason.HEADER)


def test_auto_in_the_header_wins_over_the_model() -> None:
    assert decide(RouteQuery(header="auto", model=SV, turns=("Who are you?",))) == (
        ((EN, 1.0),),
        Reason.LANGUAGE,
    )


@pytest.mark.parametrize(
    ("model", "target"),
    [(SV, ((SV, 1.0),)), (f"{SV}@v1.1", ((f"{SV}@v1.1", 1.0),)), ("oneseek-mini", ())],
)
def test_the_model_chooses(model: str, target: object) -> None:
    assert decide(RouteQuery(model=model, turns=("Who are you?",))) == (target, Reason.MODEL)


@pytest.mark.parametrize("model", [None, "oneseek"])
def test_the_language_chooses(model: str | None) -> None:
    assert decide(RouteQuery(model=model, turns=("Vem är du?",))) == (((SV, 1.0),), Reason.LANGUAGE)
    assert decide(RouteQuery(model=model, turns=("Who are you?",))) == (((EN, 1.0),), Reason.LANGUAGE)


@pytest.mark.parametrize(
    ("question", "name", "field"),
    [
        (RouteQuery(header="fr"), "fr", "X-OneSeek-Adapter"),
        (RouteQuery(header="sv=0.5,fr=0.5"), "fr", "X-OneSeek-Adapter"),
        (RouteQuery(header="other:sv"), "other:sv", "X-OneSeek-Adapter"),
        (RouteQuery(header="oneseek-mini:fr"), "oneseek-mini:fr", "X-OneSeek-Adapter"),
        (RouteQuery(model="sv:en"), "sv:en", "model"),
        (RouteQuery(model="gpt 9"), "gpt 9", "model"),
        (RouteQuery(model="sv=0.5,fr=0.5"), "fr", "model"),
        (RouteQuery(model="gpt-9"), "gpt-9", "model"),
        (RouteQuery(model=""), "", "model"),
        (RouteQuery(model="gpt-9", header="sv"), "gpt-9", "model"),
    ],
)
def test_an_unknown_name_is_never_the_base_in_silence(question: RouteQuery, name: str, field: str) -> None:
    with pytest.raises(UnknownNameError) as caught:
        decide(question)
    assert (caught.value.name, caught.value.field) == (name, field)
    assert repr(name) in str(caught.value)


@pytest.mark.parametrize("field", ["header", "model"])
@pytest.mark.parametrize(
    "text", ["sv=none", "sv=0.5,oneseek-mini=0.5", "oneseek-mini=0.5", "oneseek-mini:auto=0.5,sv=1"]
)
def test_a_malformed_selection_is_refused_by_its_field(field: str, text: str) -> None:
    with pytest.raises(SelectionError) as caught:
        decide(RouteQuery(**{field: text}))  # pyright: ignore[reportArgumentType] # both are text
    assert caught.value.field == ("model" if field == "model" else "X-OneSeek-Adapter")


VOCABULARY = [
    ("base", ()),
    ("BASE", ()),
    ("oneseek-mini", ()),
    ("OneSeek-Mini", ()),
    ("oneseek-mini:base", ()),
    ("sv", (("sv", 1.0),)),
    ("SV", (("SV", 1.0),)),
    (f"{SV}@v1.1", ((f"{SV}@v1.1", 1.0),)),
    (f"oneseek-mini:{SV}@v1.1", ((f"{SV}@v1.1", 1.0),)),
    ("base:sv", (("sv", 1.0),)),
    ("sv=0.7,en=0.3", (("sv", 0.7), ("en", 0.3))),
    ("oneseek-mini:sv=0.7, en=0.3", (("sv", 0.7), ("en", 0.3))),
    *((automatic, ((EN, 1.0),)) for automatic in ("auto", "Auto", "oneseek", "OneSeek", "oneseek-mini:auto")),
]
"""What is asked for → what answers `Who are you?`."""


@pytest.mark.parametrize("field", ["header", "model"])
@pytest.mark.parametrize(("asked", "target"), VOCABULARY)
def test_header_and_model_have_one_vocabulary(field: str, asked: str, target: object) -> None:
    question = RouteQuery(turns=("Who are you?",), **{field: asked})  # pyright: ignore[reportArgumentType]
    found, reason = decide(question)
    assert found == target
    automatic = asked.lower().rpartition(":")[2] in ("auto", "oneseek")
    assert reason == (Reason.LANGUAGE if automatic else Reason(field))


def test_the_conversation_decides_where_the_question_does_not() -> None:
    question = RouteQuery(turns=("Kan du hjälpa mig med en sak?", "ok"), accept_language="en")
    assert decide(question) == (((SV, 1.0),), Reason.CONVERSATION)


@pytest.mark.parametrize(
    "text", ["Hvad synes du om mit forslag?", "Kannst du mir bei etwas helfen?", "Привет, как дела?"]
)
def test_a_language_without_an_adapter_follows_its_policy(text: str) -> None:
    assert decide(RouteQuery(turns=(text,))) == ((), Reason.NO_ADAPTER)
    assert decide(RouteQuery(turns=(text,)), router(unsupported="default", default=EN)) == (
        ((EN, 1.0),),
        Reason.NO_ADAPTER,
    )


LEANING = "Skriv en dikt om havet"
"""Swedish at a little over 0.5."""


@pytest.mark.parametrize(
    ("undecided", "text", "accept_language", "target", "reason"),
    [
        ("likeliest", LEANING, None, ((SV, 1.0),), Reason.UNDECIDED),
        ("likeliest", "42", "sv-FI, en;q=0.5", ((SV, 1.0),), Reason.ACCEPT_LANGUAGE),
        ("likeliest", "42", "de, en;q=0.5", ((EN, 1.0),), Reason.ACCEPT_LANGUAGE),
        ("likeliest", "42", "de", ((EN, 1.0),), Reason.DEFAULT),
        ("likeliest", "42", None, ((EN, 1.0),), Reason.DEFAULT),
        ("accept-language", LEANING, "en", ((EN, 1.0),), Reason.ACCEPT_LANGUAGE),
        ("accept-language", LEANING, None, ((EN, 1.0),), Reason.DEFAULT),
        ("default", LEANING, "sv;q=0.1", ((EN, 1.0),), Reason.DEFAULT),
        ("base", LEANING, "sv;q=0.1", (), Reason.UNDECIDED),
    ],
)
def test_undecided_is_an_outcome_of_its_own(
    undecided: str, text: str, accept_language: str | None, target: object, reason: Reason
) -> None:
    using = router(undecided=undecided, default=EN)
    route = using.decide(RouteQuery(turns=(text,), accept_language=accept_language), Registry())
    assert (route.target, route.reason) == (target, reason)
    assert route.language is None


@pytest.mark.parametrize("default", [None, "base"])
def test_without_a_default_the_base_answers(default: str | None) -> None:
    assert decide(RouteQuery(turns=("42",)), router(default=default)) == ((), Reason.DEFAULT)


@pytest.mark.parametrize("text", ["ok", "OK!", "👍", "42", "hmm...", "haha", ""])
def test_a_message_without_evidence_gets_the_adapter_for_it(text: str) -> None:
    introduced = router(without_evidence=EN)
    question = RouteQuery(turns=(text,))
    assert decide(question, introduced) == (((EN, 1.0),), Reason.DEFAULT)
    assert decide(replace(question, fallback=SV), introduced) == (((SV, 1.0),), Reason.DEFAULT)
    assert decide(question, introduced, Registry(SV)) == ((), Reason.DEFAULT)
    for default, target in (("base", ()), (SV, ((SV, 1.0),))):
        assert decide(question, router(without_evidence=EN, default=default))[0] == target
    assert decide(question, router(without_evidence=EN, undecided="base"))[0] == ()


@pytest.mark.parametrize(
    ("question", "reason"),
    [
        (RouteQuery(turns=("ja",)), Reason.DEFAULT),
        (RouteQuery(turns=("nei",)), Reason.UNDECIDED),
        (RouteQuery(turns=("Hvad synes du om mit forslag?",)), Reason.NO_ADAPTER),
        (RouteQuery(turns=("ok",), accept_language="da"), Reason.DEFAULT),
        (RouteQuery(turns=("ok",), system="Svar altid på dansk."), Reason.DEFAULT),
    ],
)
def test_any_evidence_keeps_a_message_from_that_adapter(question: RouteQuery, reason: Reason) -> None:
    assert decide(question, router(without_evidence=EN)) == ((), reason)


@pytest.mark.parametrize(
    ("question", "target"),
    [
        (RouteQuery(turns=("42",)), ((SV, 1.0),)),
        (RouteQuery(turns=("Kannst du mir bei etwas helfen?",)), ((SV, 1.0),)),
        (RouteQuery(turns=("Who are you?",)), ((EN, 1.0),)),
        (RouteQuery(turns=("42",), header="base"), ()),
        (RouteQuery(turns=("42",), model="base"), ()),
        (RouteQuery(turns=("42",), header="auto"), ((SV, 1.0),)),
    ],
)
def test_a_fallback_takes_the_place_of_the_base_alone(question: RouteQuery, target: object) -> None:
    assert decide(replace(question, fallback=SV))[0] == target
    gone = decide(replace(question, fallback="gone"))
    assert gone == decide(question)


def test_an_adapter_that_left_the_registry_is_not_chosen() -> None:
    assert decide(RouteQuery(turns=("Vem är du?",)), registry=Registry(EN)) == ((), Reason.NO_ADAPTER)
    assert decide(RouteQuery(turns=("42",)), router(default=SV), Registry(EN)) == ((), Reason.DEFAULT)
    assert (
        decide(RouteQuery(turns=("42",), accept_language="sv"), router(default=EN), Registry(EN))[1]
        is Reason.DEFAULT
    )


def test_a_question_without_user_turns_goes_to_the_default() -> None:
    assert decide(RouteQuery(), router(default=SV)) == (((SV, 1.0),), Reason.DEFAULT)
