from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.detect import ProfileDetector
from routing.reading.clean import HEAD, LIMIT, TAIL, clean
from routing.settings import LanguageRow, RoutingSettings
from tests.timing import least_seconds

DETECTOR = ProfileDetector(RoutingSettings(languages=(LanguageRow("en", "en"), LanguageRow("sv", "sv"))))
ORDINARY = "Hur mår du i dag, min vän? " * 400
"""A text longer than what is read of one."""
ANY_TEXT = st.text(st.characters(), max_size=400)  # characters() includes lone surrogates and controls
PIECES = st.lists(
    st.sampled_from(
        [
            "```",
            "`",
            '"',
            "”",
            "“",
            "'",
            "\n",
            ": ",
            "http://",
            "www.",
            "@",
            "a@",
            "_",
            "a.",
            "\ud800",
            "\0",
            "å",
            "hej ",
            "the ",
        ]
    ),
    max_size=200,
).map("".join)


@given(st.lists(ANY_TEXT | PIECES, max_size=8), st.none() | ANY_TEXT)
def test_any_turns_give_a_distribution_and_the_same_one_again(
    turns: list[str], accept_language: str | None
) -> None:
    found = DETECTOR.detect(turns, accept_language)
    assert found == DETECTOR.detect(turns, accept_language)
    assert sum(found.scores.values()) == pytest.approx(1.0)
    assert all(a >= b > 0 for a, b in pairwise(found.scores.values()))
    assert (found.language is None) == (found.confidence < 0.9)


@given(ANY_TEXT | PIECES)
def test_cleaning_is_bounded_and_keeps_words_alone(text: str) -> None:
    cleaned = clean(text)
    assert sum(map(len, cleaned.words.all)) <= 2 * LIMIT  # one capital can become two letters
    assert all(word.replace("'", "").isalnum() for word in cleaned.words.all)


@pytest.mark.parametrize(
    "unit",
    [
        "a",
        "å",
        "å ",
        " ",
        "\n",
        ": ",
        "`",
        "```",
        '"',
        "“",
        "'",
        "'a",
        "a'",
        "@",
        "a@",
        "a.",
        "a_",
        "http://",
        "www.",
        "ab:",
        "aA",
        "a1",
        "<",
        "\ud800",
        "\0",
        "é",
        "e\u0301",
        "👍",
        "ﷺ",
        "あ",
        "क्",
        "x: ",
        '"x',
        "~~~x",
        "\u0301",
        "<a",
        "://",
        "a+",
    ],
)
def test_a_million_characters_of_anything_stay_fast(unit: str) -> None:
    text = unit * (1_000_000 // len(unit))
    took, ordinary = least_seconds(lambda: DETECTOR.detect([text]), lambda: DETECTOR.detect([ORDINARY]))
    assert took < 10 * ordinary


def test_time_is_bounded_however_long_the_conversation() -> None:
    turns = [ORDINARY] * 2000
    took, short = least_seconds(
        lambda: DETECTOR.detect([*turns, "ok"]), lambda: DETECTOR.detect([*turns[:10], "ok"])
    )
    assert took < 5 * short


def test_only_the_beginning_and_the_end_of_a_long_message_are_read() -> None:
    code = "```" + "x" * (HEAD + TAIL) * LIMIT
    cleaned = clean(f"Vad tycker du? {code}\n{'```' * 2} tack")
    assert cleaned.words.all == ("vad", "tycker", "du")
    cleaned = clean(f"Vad tycker du? {'mitten ' * LIMIT} {'1' * TAIL * LIMIT}")
    assert cleaned.words.all[:3] == ("vad", "tycker", "du")
    assert "rest" in cleaned.stripped
