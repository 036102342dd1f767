"""Which adapter answers a language: by what adapters say, by settings, and beside names."""

import pytest

from adapters.registry.served import ServedAdapters
from tests.adapters.registry.served_adapters import BASE, EN, SV, adapter, served


def test_a_language_that_two_speak_names_neither() -> None:
    other = adapter("other-sv", "sv")
    known = served(SV, other)
    assert not known.is_adapter("sv")
    assert known.languages() == {}
    assert known.contested_languages() == {"sv": ("other-sv", "Zero-SV")}
    settled = served(SV, other, sv="OTHER-SV")
    assert settled.resolve("sv") is other
    assert settled.languages() == {"sv": "other-sv"}
    assert settled.contested_languages() == {}


def test_a_configured_language_needs_no_adapter_that_says_so() -> None:
    known = served(EN, SV, no="zero-sv")
    assert known.languages() == {"en": "zero", "no": "Zero-SV", "sv": "Zero-SV"}
    assert known.resolve("no") is SV


def test_a_configured_language_goes_before_what_adapters_say() -> None:
    known = served(EN, SV, sv="zero")
    assert known.resolve("sv") is EN
    assert known.languages()["sv"] == "zero"


def test_an_alias_goes_before_a_language() -> None:
    named = adapter("sv", "en")
    assert served(named, SV).resolve("sv") is named


LIKE_A_CODE = [adapter("sv@v1"), adapter("it@v1"), adapter("mine-sv@v1", "sv"), adapter("roma@v1", "it")]


@pytest.mark.parametrize("configured", [{}, {"sv": "mine-sv"}])
def test_an_alias_that_is_a_language_code_is_a_name_alone(configured: dict[str, str]) -> None:
    served = ServedAdapters(LIKE_A_CODE, base_digest=BASE, languages=configured)
    assert served.languages() == {"it": "roma", "sv": "mine-sv"}
    assert (served.resolve("sv").alias, served.resolve("IT").alias) == ("sv", "it")
    assert served.contested_languages() == {}


def test_such_an_alias_answers_its_language_if_it_speaks_it_or_is_configured() -> None:
    assert ServedAdapters([adapter("sv@v1", "sv")], base_digest=BASE).languages() == {"sv": "sv"}
    served = ServedAdapters(LIKE_A_CODE, base_digest=BASE, languages={"sv": "sv"})
    assert served.languages() == {"it": "roma", "sv": "sv"}
    both = ServedAdapters([adapter("sv@v1", "sv"), adapter("mine@v1", "sv")], base_digest=BASE)
    assert (both.languages(), both.contested_languages()) == ({}, {"sv": ("mine", "sv")})


def test_a_short_name_that_is_a_language_code_takes_no_language() -> None:
    held = [adapter("mine-sv@v1", "sv"), adapter("other@v1")]
    served = ServedAdapters(held, base_digest=BASE, short_names={"sv": "other"})
    assert (served.languages(), served.resolve("sv").alias) == ({"sv": "mine-sv"}, "other")
