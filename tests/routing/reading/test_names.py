from __future__ import annotations

import pytest

from routing.reading.names import is_name, read_words


@pytest.mark.parametrize(
    ("text", "telling", "names"),
    [
        ("who is Håkan Hellström", "who is", "håkan hellström"),
        ("I am from Malmö, Sweden", "i am from", "malmö sweden"),
        ("Hej! Vem är du?", "hej vem är du", ""),
        ("Jag åt. Du åt.", "jag åt du åt", ""),
        ("Kan I'm so sure du", "kan i'm so sure du", ""),
        ("Vad är HTTP egentligen", "vad är egentligen", "http"),
        ("Visa Åsa Östbergs Ärliga Åsikter", "visa åsa östbergs ärliga åsikter", ""),
        ("how do i pronounce göteborg", "how do i pronounce göteborg", ""),
    ],
)
def test_names_are_told_by_their_capitals(text: str, telling: str, names: str) -> None:
    found = read_words(text)
    assert found.telling == tuple(telling.split())
    assert found.names == tuple(names.split())
    assert set(found.all) == {*found.telling, *found.names}


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("Göteborg?", True),
        ("Harry Potter", True),
        ("Jan-Ove Waldner!", True),
        ("göteborg", False),
        ("Harry Potter and the", False),
        ("Vad?\nNej", False),
        ("", False),
    ],
)
def test_a_turn_may_be_a_name_and_nothing_else(text: str, name: bool) -> None:
    assert is_name(text) is name
