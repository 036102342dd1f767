"""The number of a home's format: written once, read at the start, and refused if it is newer."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.home import FORMAT, FORMAT_FILE, HomeError, check_home, mark_home, read_format


def test_a_home_without_a_number_is_of_format_1_and_gets_it_at_the_first_write(tmp_path: Path) -> None:
    home = tmp_path / "home"
    assert read_format(home) == 1
    check_home(home)
    assert not home.exists()
    mark_home(home)
    assert [path.name for path in home.iterdir()] == [FORMAT_FILE]
    assert read_format(home) == FORMAT
    stamp = (home / FORMAT_FILE).stat().st_mtime_ns
    mark_home(home)
    assert (home / FORMAT_FILE).stat().st_mtime_ns == stamp


@pytest.mark.parametrize("number", [FORMAT + 1, 1000])
def test_a_newer_format_is_refused_and_stays_as_it_is(tmp_path: Path, number: int) -> None:
    (tmp_path / FORMAT_FILE).write_text(f"{number}\n", encoding="ascii")
    for use in (check_home, mark_home):
        with pytest.raises(HomeError) as refused:
            use(tmp_path)
        assert refused.value.path == tmp_path
        for part in (str(tmp_path), f"format {number}", f"format {FORMAT}", "ONESEEK_HOME"):
            assert part in str(refused.value)
    assert read_format(tmp_path) == number


@pytest.mark.parametrize("text", ["", "one", "0", "-1", "1.0", "1_0", "١", "1 2", "9" * 100])
def test_what_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / FORMAT_FILE).write_text(text, encoding="utf-8")
    with pytest.raises(HomeError) as refused:
        mark_home(tmp_path)
    assert str(tmp_path) in str(refused.value)
    assert (tmp_path / FORMAT_FILE).read_text(encoding="utf-8") == text


def test_a_home_that_cannot_be_written_to_stays_as_it_is(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    mark_home(tmp_path / "file" / "home")
    assert read_format(tmp_path / "file" / "home") == 1
    assert (tmp_path / "file").read_bytes() == b""
