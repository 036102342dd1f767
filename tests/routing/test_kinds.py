"""Messages of the kinds that detectors fail on: each kind stands for a rule."""

from __future__ import annotations

import pytest

from routing.detect import ProfileDetector
from routing.evaluate.judge import Judge
from routing.evaluate.report import SWEDISH_BROWSER

JUDGE = Judge()
ENGLISH = "I would like to know when the shop opens on Saturday and how much it costs to park there."


@pytest.mark.parametrize(
    ("text", "adapter"),
    [
        # Names.
        ("Who is Håkan Hellström?", "en"),
        ("how do I pronounce Göteborg", "en"),
        ("is Östersund worth visiting", "en"),
        ("Call me Örjan", "en"),
        ("vem är Taylor Swift", "sv"),
        # Common words of chat, and Swedish on another keyboard.
        ("kul", "sv"),
        ("jaha okej", "sv"),
        ("asg", "sv"),
        ("nope", "en"),
        ("wdym", "en"),
        ("tysm", "en"),
        ("tjabba", "sv"),
        ("formatera: I has went to the store", "sv"),
        ("sammenfat: I has went to the store", None),
        ("Ar du dar?", "sv"),
        ("jag forstar inte", "sv"),
        # Words of another language inside.
        ("fixa bugget i min React-komponent", "sv"),
        ("min build failar på grund av en dependency", "sv"),
        # Neighbours.
        ("skriv en sang til bursdagen til mamma", None),
        ("kor mykje kostar det", None),
        ("Pabbi minn elskar flatbökur.", None),
        ("hvernig hefur thu thad i dag", None),
        # Pasted text.
        (f"översätt: {ENGLISH}", "sv"),
        ("rätta: I has went to the store", "sv"),
        (f"{ENGLISH}\nkan du sammanfatta det?", "sv"),
        (f"Use the context to answer.\n\n{ENGLISH}\n\nQuestion: När öppnar affären?\nAnswer:", "sv"),
        ("SELECT name FROM users WHERE age > 30 ORDER BY name;\nskriv om till en join med orders", "sv"),
    ],
)
@pytest.mark.parametrize("accept_language", [None, SWEDISH_BROWSER])
def test_where_a_message_goes(text: str, adapter: str | None, accept_language: str | None) -> None:
    assert JUDGE.adapter(text, accept_language=accept_language) == adapter


@pytest.mark.parametrize(
    ("header", "adapter"),
    [
        ("sv", "sv"),
        ("sv;q=0.2,en", "en"),
        ("de,sv;q=0.5", "sv"),
        ("de", None),
    ],
)
def test_a_text_without_evidence_follows_the_browser(header: str, adapter: str | None) -> None:
    assert JUDGE.adapter("👍", accept_language=header) == adapter


def test_an_undecided_text_follows_the_browser_only_if_it_leans_to_its_languages(
    detector: ProfileDetector,
) -> None:
    danish = "Er du med?"
    seen = detector.detect((danish,))
    assert seen.language not in ("sv", "en")
    assert seen.scores["sv"] + seen.scores["en"] < 0.5
    assert JUDGE.adapter(danish, accept_language="en") is None


def test_a_header_weighs_by_its_quality(detector: ProfileDetector) -> None:
    question = "Skriv en dikt om havet"
    scores = [detector.detect([question], f"sv;q={q}").scores["sv"] for q in ("0.1", "0.5", "1")]
    assert scores == sorted(scores)
    assert scores[0] < scores[-1]


def test_nothing_but_a_system_prompt() -> None:
    assert JUDGE.adapter("👍", system="Svara alltid på svenska") == "sv"
    assert JUDGE.adapter("👍", system="Svara alltid på svenska", accept_language="en") == "sv"
    assert JUDGE.adapter("Who are you?", system="Svara alltid på svenska") == "en"
    assert JUDGE.adapter("Hvad hedder du?", system="Svara alltid på svenska") is None


@pytest.mark.parametrize(
    "last",
    ["Göteborg?", "Harry Potter", "👍", 'for x in items:\n    print("hello world")', "npm ERR! code E404"],
)
@pytest.mark.parametrize(("first", "adapter"), [("Hur långt är det dit?", "sv"), ("How far is that?", "en")])
def test_a_turn_that_tells_nothing_follows_the_conversation(first: str, adapter: str, last: str) -> None:
    assert JUDGE.adapter(first, last) == adapter


def test_a_clear_question_is_followed_at_once() -> None:
    assert JUDGE.adapter("Hur långt är det dit?", "Vad kostar det?", "What is the capital of France?") == "en"
    assert JUDGE.adapter("How far is that?", "What is it?", "Vad heter huvudstaden i Frankrike?") == "sv"
