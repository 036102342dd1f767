from __future__ import annotations

from typing import Any

import pytest

from routing.settings import LanguageRow, RoutingSettings, detection_code


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("threshold", -0.1),
        ("threshold", float("nan")),
        ("sure", 0.4),
        ("sure", 1.1),
        ("other_prior", 0.0),
        ("other_prior", 1.0),
        ("stay", 1.0),
        ("stay", -0.5),
        ("hint", 0.5),
        ("hint", float("inf")),
        ("history", 0),
        ("history", 51),
        ("undecided", "english"),
        ("unsupported", "nearest"),
        ("default", ""),
    ],
)
def test_a_bad_value_is_refused_with_field_and_value(field: str, value: object) -> None:
    settings: dict[str, Any] = {field: value}
    with pytest.raises(ValueError, match=rf"\b{field}\b") as caught:
        RoutingSettings(**settings)
    assert value == "" or repr(value) in str(caught.value)


@pytest.mark.parametrize("code", ["", "s1", "åä", "зв"])
def test_a_code_is_of_ascii_letters(code: str) -> None:
    with pytest.raises(ValueError, match=r"\bcode\b.*ISO 639-1"):
        LanguageRow(code, "adapter")


@pytest.mark.parametrize("rows", [("sv", "sv"), ("nb", "nn"), ("sv", "sv-FI")])
def test_a_language_has_one_row(rows: tuple[str, str]) -> None:
    with pytest.raises(ValueError, match="languages"):
        RoutingSettings(languages=tuple(LanguageRow(code, "adapter") for code in rows))


@pytest.mark.parametrize(
    "row",
    [
        {"code": ""},
        {"code": "xx"},
        {"code": "s1"},
        {"adapter": ""},
        {"weight": 0.0},
        {"weight": float("nan")},
    ],
)
def test_a_bad_row_is_refused(row: dict[str, Any]) -> None:
    made: dict[str, Any] = {"code": "sv", "adapter": "oneseek-sv", **row}
    with pytest.raises(ValueError, match=rf"\b{next(iter(row))}\b"):
        LanguageRow(**made)


def test_a_row_is_found_by_the_code_that_detection_uses() -> None:
    settings = RoutingSettings(languages=(LanguageRow("nb-NO", "oneseek-no"),))
    assert (settings.adapter("no"), settings.adapter("sv"), settings.adapter(None)) == (
        "oneseek-no",
        None,
        None,
    )


@pytest.mark.parametrize(
    ("tag", "code"), [("sv", "sv"), ("SV_se", "sv"), (" nn-NO", "no"), ("zh-Hant-TW", "zh")]
)
def test_canonical_codes(tag: str, code: str) -> None:
    assert detection_code(tag) == code
