from __future__ import annotations

import json
import math
from importlib.resources import files

import numpy as np
import pytest

from routing.evidence.profiles import ALPHA, ProfileError, load_profiles, profiled_languages


def by_hand(text: str, language: str) -> float:
    """The same sum, gram by gram, from the package's own JSON."""
    profile = json.loads(files("langdetect").joinpath("profiles", language).read_bytes())
    shares: dict[str, float] = {}
    for gram, count in profile["freq"].items():
        if gram != " ":
            shares[gram.lower()] = shares.get(gram.lower(), 0.0) + count / profile["n_words"][len(gram) - 1]
    total = 0.0
    for word in text.split():
        padded = f" {word} "
        for length in (1, 2, 3):
            for start in range(len(padded) - length + 1):
                gram = padded[start : start + length]
                if gram != " " and gram in KNOWN:
                    total += math.log(shares.get(gram, 0.0) + ALPHA)
    return total


def grams_of(language: str) -> set[str]:
    profile = json.loads(files("langdetect").joinpath("profiles", language).read_bytes())
    return {gram.lower() for gram in profile["freq"]}


KNOWN = grams_of("sv") | grams_of("en")


@pytest.mark.parametrize("text", ["jag", "vad heter du", "who are you", "å", "xylofon qqq"])
def test_the_score_is_the_sum_over_every_known_n_gram(text: str) -> None:
    table = load_profiles(("sv", "en"))
    scores, grams = table.score(f" {text} ")
    assert scores == pytest.approx([by_hand(text, "sv"), by_hand(text, "en")], rel=1e-5)
    assert grams > 0


def test_letters_that_no_profile_has_tell_nothing() -> None:
    scores, grams = load_profiles(("sv", "en")).score(" ლლ ")
    assert (grams, scores.tolist()) == (0, [0.0, 0.0])


def test_the_shortest_texts_are_scored() -> None:
    table = load_profiles(("sv", "en"))
    assert table.score("  ")[1] == 0
    assert table.score(" i ")[1] == 4


def test_the_table_cannot_change() -> None:
    table = load_profiles(("sv",))
    with pytest.raises(ValueError, match="read-only"):
        table.rows[0, 0] = 1.0
    assert np.all(table.rows[0] == 0)


def test_frequent_letters_are_the_alphabet() -> None:
    table = load_profiles(("sv", "fr"))
    assert {"å", "ä", "ö"} <= table.frequent_letters(0, 5e-4)
    assert "ç" in table.frequent_letters(1, 5e-4)
    assert "å" not in table.frequent_letters(1, 5e-4)


def test_an_unknown_language_is_named() -> None:
    with pytest.raises(ProfileError, match=r"qq, zz.* af"):
        load_profiles(("sv", "qq", "zz"))
    assert "sv" in profiled_languages()
