from __future__ import annotations

import pytest

from routing.reading.clean import clean, words_of


@pytest.mark.parametrize(
    ("message", "words", "stripped"),
    [
        ("Hej, vad HETER du?", "hej vad heter du", ()),
        ("don’t you know", "don't you know", ()),
        ("a\u030a ar", "å ar", ()),
        ("kör ```for i in range(3): pass``` nu", "kör nu", ("code",)),
        ("kör ```utan slut på koden", "kör", ("code",)),
        ("vad gör `print` här", "vad gör här", ("code",)),
        ("läs https://example.com/the-text noga", "läs noga", ("address",)),
        ("skriv till anna.berg@example.se tack", "skriv till tack", ("address",)),
        ("varför är my_variable None", "varför är none", ("identifier",)),
        ("öppna setup.py och getUserName()", "öppna och", ("identifier",)),
        ('vad betyder "never mind" egentligen', "vad betyder egentligen", ("quotation",)),
        ('säg "never mind"', "säg never mind", ()),
        ("hej\ud800 du", "hej du", ()),
        ("den 6:e juni klockan 15.30", "den e juni klockan", ()),
    ],
)
def test_what_is_left(message: str, words: str, stripped: tuple[str, ...]) -> None:
    cleaned = clean(message)
    assert " ".join(cleaned.words.all) == words
    assert cleaned.stripped == stripped


PAYLOAD = "ett två tre fyra fem sex sju åtta nio tio elva tolv"


@pytest.mark.parametrize(
    ("message", "instruction"),
    [
        (f"Translate this: {PAYLOAD}", "translate this"),
        (f"Translate this:\n{PAYLOAD}", "translate this"),
        (f"{PAYLOAD} {PAYLOAD}\nwhat does it mean", "what does it mean"),
        (f"Obs: {PAYLOAD}\nwhat does it mean", "what does it mean"),
        ("Translate this: ett två", "translate this"),
        ("Klart nu: ett två", None),
        (PAYLOAD, None),
        (f"{PAYLOAD} {PAYLOAD}\n{PAYLOAD} {PAYLOAD}", None),
    ],
)
def test_the_instruction(message: str, instruction: str | None) -> None:
    found = clean(message).instruction
    assert (None if found is None else " ".join(found.words.all)) == instruction


def test_the_limit_is_on_the_clean_text() -> None:
    cleaned = clean("```" + "x" * 2000 + "``` vad är det här", limit=30)
    assert cleaned.words.all == ("vad", "är", "det", "här")
    assert len(clean("ord " * 100, limit=40).words.all) == 10


def test_words_end_at_digits_and_signs() -> None:
    assert words_of("abc1def_ghi-jkl Åke's") == ("abc", "def", "ghi", "jkl", "åke's")
