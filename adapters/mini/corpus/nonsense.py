"""Make up words that do not exist, so that the mini base model learns to recognise unknown words."""

from __future__ import annotations

import random

_ONSETS = {
    "en": [
        "b",
        "c",
        "d",
        "f",
        "g",
        "h",
        "j",
        "k",
        "l",
        "m",
        "n",
        "p",
        "r",
        "s",
        "t",
        "v",
        "w",
        "br",
        "ch",
        "cl",
        "cr",
        "dr",
        "fl",
        "fr",
        "gr",
        "pl",
        "pr",
        "qu",
        "sh",
        "sl",
        "sn",
        "sp",
        "st",
        "str",
        "th",
        "tr",
        "wh",
    ],
    "sv": [
        "b",
        "d",
        "f",
        "g",
        "h",
        "j",
        "k",
        "l",
        "m",
        "n",
        "p",
        "r",
        "s",
        "t",
        "v",
        "bl",
        "br",
        "dr",
        "fl",
        "fr",
        "gr",
        "kl",
        "kr",
        "kv",
        "pl",
        "pr",
        "sj",
        "sk",
        "skr",
        "sl",
        "sm",
        "sn",
        "sp",
        "st",
        "str",
        "sv",
        "tj",
        "tr",
    ],
}
_VOWELS = {
    "en": ["a", "e", "i", "o", "u", "a", "e", "i", "o", "ea", "ee", "oo", "ou", "ai", "ie", "y"],
    "sv": ["a", "e", "i", "o", "u", "å", "ä", "ö", "y", "a", "e", "i", "o"],
}
_CODAS = {
    "en": [
        "",
        "l",
        "m",
        "n",
        "r",
        "s",
        "t",
        "ck",
        "nd",
        "ng",
        "rd",
        "rk",
        "rt",
        "st",
        "x",
        "p",
        "d",
        "th",
        "sh",
        "ll",
    ],
    "sv": [
        "",
        "l",
        "m",
        "n",
        "r",
        "s",
        "t",
        "ck",
        "nd",
        "ng",
        "rd",
        "rk",
        "rt",
        "st",
        "ll",
        "nn",
        "ss",
        "tt",
        "d",
        "g",
        "k",
        "sk",
    ],
}
_ENDINGS = {
    "en": [
        "",
        "er",
        "ing",
        "ation",
        "ity",
        "ism",
        "ist",
        "ment",
        "ness",
        "ology",
        "able",
        "ous",
        "ic",
        "al",
        "ine",
        "ium",
        "ette",
        "ward",
        "ship",
        "ed",
        "ly",
        "s",
        "es",
    ],
    "sv": [
        "",
        "en",
        "et",
        "ar",
        "er",
        "or",
        "ing",
        "ning",
        "else",
        "het",
        "skap",
        "are",
        "ism",
        "ist",
        "lig",
        "isk",
        "sam",
        "ande",
        "bar",
        "na",
        "an",
        "a",
        "e",
        "s",
        "ad",
    ],
}


def word(rng: random.Random, language: str) -> str:
    """Return a random, pronounceable, made-up word of one to three syllables."""
    syllables = rng.choices((1, 2, 3), (3, 5, 2))[0]
    made = "".join(
        rng.choice(_ONSETS[language]) + rng.choice(_VOWELS[language]) + rng.choice(_CODAS[language])
        for _ in range(syllables)
    )
    made += rng.choice(_ENDINGS[language])
    return made.capitalize() if rng.random() < 0.25 else made


def nonsense(rng: random.Random, language: str) -> str:
    """Return one or two made-up words, sometimes after an article."""
    article = rng.choice(
        {"en": ("", "", "a ", "the ", "my "), "sv": ("", "", "en ", "ett ", "min ")}[language]
    )
    return article + " ".join(word(rng, language) for _ in range(rng.choices((1, 2), (3, 1))[0]))


def gibberish(rng: random.Random) -> str:
    """Return a text as if typed by accident: random letters, or only punctuation or a number."""
    if rng.random() < 0.15:
        return rng.choice(
            ["...", "?", "???", "!", "!!!", ".", "-", "?!", ",,,", "#", "***", ":", "1", "42", "7"]
        )
    rows = ("qwertyuiop", "asdfghjkl", "zxcvbnm", "abcdefghijklmnopqrstuvwxyz")
    row = rng.choice(rows)
    return " ".join(
        "".join(rng.choice(row) for _ in range(rng.randint(3, 9)))
        for _ in range(rng.choices((1, 2, 3), (5, 2, 1))[0])
    )
