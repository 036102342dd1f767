"""Names: what is one, what is refused, and that order and case behave."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from adapters import names

ALIASES = st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True)
NUMBERS = st.lists(st.integers(0, 10**8), min_size=1, max_size=4)


@pytest.mark.parametrize(
    "text", ["oneseek-7b-zero-sv", "a", "7", "A.b_c-d", "x" * 128, "sv", "based", "console"]
)
def test_aliases(text: str) -> None:
    assert names.alias(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "a b",
        "-a",
        ".a",
        "..",
        "a/b",
        "a\\b",
        "a@b",
        "a=b",
        "a,b",
        "å",
        "a\n",
        "a\0",
        "x" * 129,
        "a:b",
        "²",
        "\u017fv",
        "\u212a",
    ],
)
def test_what_is_no_alias(text: str) -> None:
    with pytest.raises(ValueError, match="128"):
        names.alias(text)


@pytest.mark.parametrize("text", ["base", "AUTO", "oneseek", "Default"])
def test_reserved_names(text: str) -> None:
    with pytest.raises(ValueError, match=repr(text)):
        names.alias(text)


@pytest.mark.parametrize("text", ["con", "NUL", "com1", "aux.v1", "a."])
def test_names_that_windows_keeps(text: str) -> None:
    with pytest.raises(ValueError, match="Windows"):
        names.alias(text)


@pytest.mark.parametrize("text", ["v1", "v1.1", "v1.1-SV", "V2.0.13-rc1", "v10"])
def test_versions(text: str) -> None:
    assert names.version(text) == text


@pytest.mark.parametrize(
    "text", ["", "1.1", "v", "v.1", "latest", "v1/2", "v1..2", "v1 ", "v1\n", "v" + "1" * 10, "v١"]
)
def test_what_is_no_version(text: str) -> None:
    with pytest.raises(ValueError, match=r"v1\.1-SV"):
        names.version(text)


@pytest.mark.parametrize("text", ["", "s", "swedish", "sv-SE", "å1", "12"])
def test_what_is_no_language(text: str) -> None:
    with pytest.raises(ValueError, match="ISO 639-1"):
        names.language(text)


@pytest.mark.parametrize(
    ("folder", "alias", "version", "language"),
    [
        ("oneseek-7b-zero-v1.1", "oneseek-7b-zero", "v1.1", None),
        ("oneseek-7b-zero-v1.1-SV", "oneseek-7b-zero-sv", "v1.1", "sv"),
        ("oneseek-7b-zero", "oneseek-7b-zero", "v1", None),
        ("My Adapter (2)", "my-adapter-2", "v1", None),
        ("ÅSA_final", "sa_final", "v1", None),
        ("v1.1", "v1.1", "v1", None),
    ],
)
def test_folder_names(folder: str, alias: str, version: str, language: str | None) -> None:
    assert names.FolderName.read(folder) == names.FolderName(alias, version, language)


@given(st.text(max_size=300))
def test_a_folders_name_gives_an_alias_or_a_refusal(text: str) -> None:
    try:
        read = names.FolderName.read(text)
    except ValueError:
        return
    assert names.alias(read.alias) == read.alias
    assert names.version(read.version) == read.version


@given(st.text(max_size=300))
def test_an_alias_is_a_harmless_folders_name(text: str) -> None:
    try:
        alias = names.alias(text)
    except ValueError:
        return
    assert alias.isascii()
    assert alias.isprintable()
    assert not set(alias) & set('/\\:@=,"<>|?* ')
    assert alias.strip(".") == alias.lstrip(".") == alias


@given(ALIASES, st.none() | NUMBERS)
def test_full_names_come_apart(alias: str, numbers: list[int] | None) -> None:
    assume(alias not in names.RESERVED)
    assume(not alias.endswith("."))
    assume(alias.split(".")[0] not in ("con", "prn", "aux", "nul"))
    version = None if numbers is None else "v" + ".".join(map(str, numbers))
    text = alias if version is None else f"{alias}@{version}"
    assert names.split_name(text) == (alias, version)


@given(NUMBERS, NUMBERS)
def test_versions_are_ordered_as_their_numbers(one: list[int], other: list[int]) -> None:
    first, second = (names.natural("v" + ".".join(map(str, numbers))) for numbers in (one, other))
    assert (first < second) == (one < other)


def test_the_natural_order() -> None:
    versions = ["v1", "v1.1", "v1.1-SV", "v1.2", "v1.9", "v1.10", "v2", "v10"]
    assert sorted(sorted(versions), key=names.natural) == versions
