from __future__ import annotations

import pytest

from routing.accept import preferred_languages


@pytest.mark.parametrize(
    ("header", "languages"),
    [
        (None, ()),
        ("", ()),
        ("sv", ("sv",)),
        ("sv-SE,sv;q=0.9,en-US;q=0.8,en;q=0.7", ("sv", "en")),
        ("en;q=0.5, sv;q=0.9", ("sv", "en")),
        ("da, nb, sv", ("da", "no", "sv")),
        ("en;q=0, sv;q=0.1", ("sv",)),
        ("*, sv;q=0.5", ("sv",)),
        ("sv;q=2, en;q=x, fi", ("fi",)),
        ("en;q=1.000", ("en",)),
        (",".join(["en"] * 20 + ["sv"]), ("en",)),
        ("x" * 300 + ",sv", ()),
    ],
)
def test_languages_by_falling_quality(header: str | None, languages: tuple[str, ...]) -> None:
    assert preferred_languages(header) == languages
