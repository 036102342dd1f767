"""Unknown fields: which are near a known one, and what is told of the others."""

from __future__ import annotations

import itertools
from collections.abc import Iterable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from server.api.fields.generation import ChatFields, known
from server.api.fields.nearness import SHORT, may_be_near, nearest
from server.api.fields.refusals import CHAT_REFUSED, HINTS
from server.api.fields.unknown import IGNORED_HEADER, MAX_COMPARED, MAX_NAMED, UnknownFields
from server.api.wire.bounds import MAX_FIELDS
from server.errors import ApiError

KNOWN = known(ChatFields) | HINTS | frozenset(CHAT_REFUSED)
LETTERS = "abcdefghijklmnopqrstuvwxyz_"
Edit = st.tuples(
    st.sampled_from(["insert", "remove", "change", "swap"]), st.integers(0, 40), st.sampled_from(LETTERS)
)


def edited(name: str, edit: tuple[str, int, str]) -> str:
    kind, place, letter = edit
    place %= len(name)
    match kind:
        case "insert":
            return name[:place] + letter + name[place:]
        case "remove":
            return name[:place] + name[place + 1 :]
        case "change":
            return name[:place] + letter + name[place + 1 :]
        case _:
            return name[:place] + name[place : place + 2][::-1] + name[place + 2 :]


@given(
    name=st.sampled_from(sorted(one for one in KNOWN if len(one) > SHORT)),
    # Nothing is edited within two characters that were swapped.
    edits=st.lists(Edit, max_size=2).filter(
        lambda edits: len(edits) < 2 or all(kind != "swap" for kind, _, _ in edits)
    ),
)
def test_a_name_within_two_edits_of_a_known_one_is_near(name: str, edits: list[tuple[str, int, str]]) -> None:
    for edit in edits:
        name = edited(name, edit)
    assert nearest(name, KNOWN) is not None
    assert may_be_near(name, KNOWN)


@pytest.mark.parametrize(
    "name", ["id", "x", "nn", "tags", "options", "thinking", "extra_body", "", "å" * 1000]
)
def test_other_names_are_near_none(name: str) -> None:
    assert nearest(name, KNOWN) is None


def test_inside_of_objects_less_than_half_may_differ() -> None:
    names = frozenset({"role", "name", "content"})
    assert nearest("date", names) == "name"
    assert nearest("date", names, cautious=True) is None
    assert nearest("rol", names, cautious=True) == "role"
    assert nearest("contnet", names, cautious=True) == "content"


def test_comparing_is_bounded() -> None:
    unknown, names = UnknownFields(), frozenset({"continue_final_message"})
    turned = ("".join(letters)[::-1] for letters in itertools.permutations("continue"))
    with pytest.raises(ApiError) as error:
        meet_all(unknown, (f"{part}_final_message" for part in turned), names)
    assert error.value.reply.code == "field_too_large"


def meet_all(unknown: UnknownFields, names: Iterable[str], known: frozenset[str]) -> None:
    for name in names:
        unknown.meet(name, known)


def test_the_number_of_names_is_bounded_and_a_repeated_one_counts_once() -> None:
    receipt: dict[str, str] = {}
    unknown = UnknownFields(receipt)
    for index in range(10 * MAX_FIELDS):
        unknown.meet("zzzz", KNOWN, f"messages[{index}]")
    assert receipt == {IGNORED_HEADER: "messages.zzzz"}
    with pytest.raises(ApiError):
        meet_all(unknown, (f"zzzz{index}" for index in range(MAX_FIELDS + 1)), KNOWN)
    assert len(receipt[IGNORED_HEADER].split(", ")) == MAX_NAMED
    assert MAX_COMPARED <= MAX_FIELDS


@given(names=st.lists(st.text(max_size=300), max_size=30))
def test_the_header_is_clean_whatever_the_names(names: list[str]) -> None:
    receipt: dict[str, str] = {}
    unknown = UnknownFields(receipt)
    for name in names:
        unknown.meet(name, frozenset({"thisnameisnearnone" * 3}))
    value = receipt.get(IGNORED_HEADER, "")
    assert value.isascii()
    assert not set(value) & set("\r\n\0\t")
    assert len(value) <= MAX_NAMED * 102
    assert value.count(",") < MAX_NAMED
