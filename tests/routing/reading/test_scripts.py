from __future__ import annotations

import pytest

from routing.evidence.profiles import profiled_languages
from routing.reading.scripts import LANGUAGES, main_script, script_of


@pytest.mark.parametrize(
    ("text", "script"),
    [
        ("", "latin"),
        ("hej", "latin"),
        ("åäöß", "latin"),
        ("tiếngviệt", "latin"),
        ("привет", "cyrillic"),
        ("приветhello", "cyrillic"),
        ("helloпри", "latin"),
        ("空はなぜ", "kana"),
        ("天空为什么", "han"),
        ("안녕", "hangul"),
        ("שלום", "hebrew"),
        ("ᚠᚢᚦ", "unknown"),
    ],
)
def test_the_script_of_most_letters(text: str, script: str) -> None:
    assert main_script(text) == script


def test_every_language_of_a_shared_script_has_a_profile() -> None:
    shared = {code for languages in LANGUAGES.values() if len(languages) > 1 for code in languages}
    assert shared <= profiled_languages()


def test_scripts_of_languages() -> None:
    assert (script_of("ru"), script_of("sv"), script_of("qq")) == ("cyrillic", "latin", "latin")
