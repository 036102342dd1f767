"""Which version a conversation gets: shares as asked for, kept over turns, and kept as a share grows."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.registry.traffic import Shadow, TrafficSplit, check_shares, conversation_key

percents = st.floats(0.1, 99.0, allow_nan=False)
MANY = [conversation_key(("tenant", f"conversation {number}")) for number in range(2000)]


def split(**canaries: float) -> TrafficSplit:
    return TrafficSplit("v1", tuple(canaries.items()), "")


def counts(wanted: TrafficSplit, alias: str = "zero") -> dict[str, int]:
    found = [wanted.version(alias, conversation) for conversation in MANY]
    return {version: found.count(version) for version in wanted.shares}


@settings(deadline=None, max_examples=30)
@given(percents, st.integers(0, 10_000))
def test_a_share_is_what_was_asked_for(percent: float, number: int) -> None:
    expected = len(MANY) * percent / 100
    spread = math.sqrt(expected * (1 - percent / 100))
    # One of some fifteen million would lie outside.
    assert abs(counts(split(v2=percent), f"zero-{number}")["v2"] - expected) <= 5.5 * spread + 1


@settings(deadline=None, max_examples=20)
@given(st.lists(st.floats(1, 30), min_size=2, max_size=3))
def test_several_canaries_have_their_shares(given_: list[float]) -> None:
    wanted = split(**{f"v{number + 2}": percent for number, percent in enumerate(given_)})
    found = counts(wanted)
    assert sum(found.values()) == len(MANY)
    for version, percent in wanted.shares.items():
        expected = len(MANY) * percent / 100
        assert abs(found[version] - expected) <= 5.5 * math.sqrt(expected * (1 - percent / 100)) + 1


@settings(deadline=None, max_examples=30)
@given(percents, percents, st.text(max_size=20))
def test_a_growing_share_keeps_its_conversations(first: float, second: float, alias: str) -> None:
    small, large = sorted((first, second))
    for conversation in MANY[:300]:
        before = split(v2=small).version(alias, conversation)
        after = split(v2=large).version(alias, conversation)
        assert after == before or (before, after) == ("v1", "v2")


@settings(deadline=None, max_examples=30)
@given(st.tuples(*[st.floats(1, 24)] * 2), st.tuples(*[st.floats(0, 24)] * 2))
def test_of_several_growing_shares_none_goes_back_to_the_active_version(
    before: tuple[float, float], more: tuple[float, float]
) -> None:
    small = split(v2=before[0], v3=before[1])
    large = split(v2=before[0] + more[0], v3=before[1] + more[1])
    for conversation in MANY[:300]:
        was, now = small.version("zero", conversation), large.version("zero", conversation)
        assert now != "v1" or was == "v1"
        assert was != "v2" or now == "v2"


def test_an_ended_canary_leaves_its_conversations_to_the_active_version_alone() -> None:
    whole = split(v2=20, v3=20)
    ended = TrafficSplit("v1", whole.canaries, "", frozenset({"v2"}))
    assert ended.shares == {"v1": 80, "v3": 20}
    for conversation in MANY:
        was, now = whole.version("zero", conversation), ended.version("zero", conversation)
        assert now == ("v1" if was == "v2" else was)


def test_canaries_of_different_versions_and_aliases_try_different_conversations() -> None:
    def canaries(wanted: TrafficSplit, alias: str) -> set[bytes]:
        return {conversation for conversation in MANY if wanted.version(alias, conversation) != "v1"}

    first = canaries(split(v2=10), "zero")
    for other in (canaries(split(v3=10), "zero"), canaries(split(v2=10), "one")):
        assert len(first & other) <= 50, "a tenth of two hundred, and not all of them"
    assert first == canaries(split(v2=10), "ZERO")


@given(st.floats(0.1, 50), st.floats(0, 50))
@settings(deadline=None, max_examples=20)
def test_a_shadow_takes_its_share_and_keeps_what_it_took(percent: float, more: float) -> None:
    took = [Shadow("v2", percent, "").takes("zero", one) for one in MANY]
    takes = [Shadow("v2", percent + more, "").takes("zero", one) for one in MANY]
    expected = len(MANY) * percent / 100
    assert abs(sum(took) - expected) <= 5.5 * math.sqrt(expected) + 1
    assert all(later for earlier, later in zip(took, takes, strict=True) if earlier)


@given(st.lists(st.text(), max_size=4), st.lists(st.text(), max_size=4))
def test_conversations_are_told_apart_by_what_they_share(first: list[str], second: list[str]) -> None:
    assert conversation_key(first) == conversation_key(list(first))
    if "\0".join(first) != "\0".join(second):
        assert conversation_key(first) != conversation_key(second)


@pytest.mark.parametrize(
    ("shares", "said"),
    [
        ({"v1": 90.0, "v2": 20.0}, r"^shares \(v1=90, v2=20\) .*\b110\b.*\b100\b"),
        ({"v2": 50.0, "v3": 50.0}, r"^shares \(v2=50, v3=50\) .*\bv1\b"),
        ({"v1": 100.0}, r"\b1\b.*\b2\b.*\b16\b"),
        ({"v1": 100.0, "v2": 0.0}, r"shares\.v2 .*\b0\.0\b.*\b100\b"),
        ({"v1": 50.0, "v2": float("nan")}, r"shares\.v2 .*\bnan\b"),
        ({"v1": 0.005, "v2": 100.0}, r"\b100\.005\b"),
        ({"v1": True, "v2": 99.0}, r"shares\.v1 .*\bTrue\b"),
    ],
)
def test_shares_that_do_not_fit_are_refused(shares: dict[str, float], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        check_shares(shares, "v1")


def test_shares_may_miss_a_hundred_by_rounding() -> None:
    assert check_shares({"V1": 33.33, "v2": 33.33, "v3": 33.34}, "v1") == (("v2", 33.33), ("v3", 33.34))
    found = check_shares({"v10": 1, "v9": 1, "v1": 98}, "v1")
    assert [version for version, _ in found] == ["v9", "v10"]
