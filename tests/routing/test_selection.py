from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from routing.selection import MAX_TERMS, SelectionError, parse_selection


@pytest.mark.parametrize(
    ("header", "blend"),
    [
        ("sv", (("sv", 1.0),)),
        (" oneseek-7b-zero-sv@v1.1 ", (("oneseek-7b-zero-sv@v1.1", 1.0),)),
        ("sv=0.5", (("sv", 0.5),)),
        ("sv=0.7,en=0.3", (("sv", 0.7), ("en", 0.3))),
        ("sv = .7 , en = -3.999", (("sv", 0.7), ("en", -3.999))),
        ("base", ()),
        ("BASE", ()),
        ("auto", "auto"),
        ("Auto", "auto"),
        ("oneseek", "auto"),
        (" OneSeek ", "auto"),
        ("oneseek-mini:sv", (("oneseek-mini:sv", 1.0),)),
        ("oneseek-mini:sv@v1=0.5", (("oneseek-mini:sv@v1", 0.5),)),
    ],
)
def test_what_a_header_means(header: str, blend: object) -> None:
    assert parse_selection(header) == blend


@pytest.mark.parametrize(
    ("header", "remedy"),
    [
        ("", "header"),
        ("   ", "header"),
        ("sv,en", "weight"),
        ("sv=0.7,en", "weight"),
        ("sv=", "between -4 and 4"),
        ("sv=nan", "between -4 and 4"),
        ("sv=inf", "between -4 and 4"),
        ("sv=1e3", "between -4 and 4"),
        ("sv=1_0", "between -4 and 4"),
        ("sv=٣", "between -4 and 4"),
        ("sv=0", "not 0"),
        ("sv=-0.0", "not 0"),
        ("sv=4", "between -4 and 4"),
        ("sv=-4", "between -4 and 4"),
        ("sv=0.5,sv=0.5", "sv "),
        ("sv=0.5,SV=0.5", "sv "),
        ("sv=0.5,base=0.5", "'base'"),
        ("sv=0.5,Base=0.5", "'base'"),
        ("OneSeek=1", "'oneseek'"),
        (":sv", "name"),
        ("a:b:sv", "name"),
        ("mini:", "name"),
        ("auto=1", "'auto'"),
        ("sv=0.5,", "name"),
        ("../etc/passwd", "name"),
        ("sv;en", "name"),
        ("åsa", "name"),
        ("sv@", "name"),
        (",".join(f"a{number}=1" for number in range(MAX_TERMS + 1)), " 8"),
        ("a" * 513, "512"),
    ],
)
def test_a_malformed_header_says_how_to_mend_it(header: str, remedy: str) -> None:
    with pytest.raises(SelectionError, match="X-OneSeek-Adapter") as caught:
        parse_selection(header)
    assert remedy in caught.value.remedy
    assert len(str(caught.value)) < 400


@given(st.text(st.characters(), max_size=600) | st.text("sv=,.-0123 @ab", max_size=60))
def test_any_header_is_read_or_refused(header: str) -> None:
    try:
        found = parse_selection(header)
    except SelectionError:
        return
    assert found == "auto" or all(0 < abs(weight) < 4 for _, weight in found)
