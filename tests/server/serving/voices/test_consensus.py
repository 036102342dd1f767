"""Pairs, clusters, dissent and the answer in the middle."""

from __future__ import annotations

import asyncio
from itertools import combinations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from server.exchange import Exchange
from server.serving.one_thread import OneThread
from server.serving.voices.comparing import WORDING, find_consensus
from server.serving.voices.consensus import (
    Agreements,
    ComparedAnswer,
    Consensus,
    build_consensus,
    form_clusters,
)

AGREES = WORDING.threshold


def built(languages: list[str | None], agreements: Agreements) -> Consensus:
    answers = [ComparedAnswer(voice, code, f"text {voice}") for voice, code in enumerate(languages)]
    return build_consensus(answers, agreements, WORDING)


def test_a_majority_has_a_dissenter() -> None:
    found = built(["en"] * 3, {(0, 1): 0.9, (0, 2): 0.1, (1, 2): 0.2})
    assert found.clusters == ((0, 1), (2,))
    assert found.dissenting == (2,)
    assert (found.medoid, found.answer) == (1, "text 1")
    assert found.agreement == pytest.approx(0.4)
    assert all(part in found.reason for part in ("2 of 3", "en", "answer 2", "0.40"))


def test_all_agree() -> None:
    found = built(["sv"] * 3, {(0, 1): 0.9, (0, 2): 0.8, (1, 2): 0.7})
    assert (found.clusters, found.dissenting, found.medoid) == (((0, 1, 2),), (), 0)
    assert all(part in found.reason for part in ("3", "sv", "0.80"))


def test_without_a_largest_cluster_nobody_dissents() -> None:
    none = built(["en"] * 3, {(0, 1): 0.1, (0, 2): 0.2, (1, 2): 0.3})
    assert (none.clusters, none.dissenting, none.medoid) == (((0,), (1,), (2,)), (), 2)
    halves = built(["en"] * 4, dict.fromkeys(combinations(range(4), 2), 0.1) | {(0, 3): 0.9, (1, 2): 0.9})
    assert (halves.clusters, halves.dissenting) == (((0, 3), (1, 2)), ())


def test_a_chain_is_no_cluster() -> None:
    """Each of a cluster agrees with each other."""
    pairs = {(0, 1): 0.9, (1, 2): 0.8, (0, 2): 0.7}
    assert form_clusters([0, 1, 2], pairs, 0.71) == ((0, 1), (2,))
    assert form_clusters([0, 1, 2], pairs, 0.7) == ((0, 1, 2),)


def test_languages_are_compared_apart() -> None:
    found = built(["en", "sv", "en", None], {(0, 2): 0.9})
    assert [(pair.voices, pair.comparable) for pair in found.pairs if pair.comparable] == [((0, 2), True)]
    assert [(group.language, group.voices) for group in found.languages] == [
        ("en", (0, 2)),
        ("sv", (1,)),
        (None, (3,)),
    ]
    assert found.dissenting == ()
    assert found.medoid == 0
    assert found.reason.count(".") == 2, "one sentence, and one number in it"


def test_each_in_a_language_of_its_own() -> None:
    found = built(["en", "sv"], {})
    assert found.agreement is None
    assert found.languages


@pytest.mark.parametrize("count", [0, 1])
def test_with_nothing_to_compare(count: int) -> None:
    found = built(["en"] * count, {})
    assert found.agreement is None
    assert found.medoid == (0 if count else None)
    assert found.reason


@settings(max_examples=200, deadline=None)
@given(data=st.data(), languages=st.lists(st.sampled_from(["en", "sv", None]), max_size=8))
def test_whatever_agrees(data: st.DataObject, languages: list[str | None]) -> None:
    pairs = [(i, j) for i, j in combinations(range(len(languages)), 2) if languages[i] == languages[j]]
    agreements = {pair: data.draw(st.sampled_from([0.0, 0.2, AGREES, 0.7, 1.0])) for pair in pairs}
    found = built(languages, agreements)
    everyone = list(range(len(languages)))
    assert sorted(voice for cluster in found.clusters for voice in cluster) == everyone
    assert sorted(voice for group in found.languages for voice in group.voices) == everyone
    for cluster in found.clusters:
        assert len({languages[voice] for voice in cluster}) == 1
        assert all(agreements[pair] >= AGREES for pair in combinations(cluster, 2))
    for group in found.languages:
        assert group.medoid in group.voices
        assert set(group.dissenting) < set(group.voices)
    assert len(found.pairs) == len(everyone) * (len(everyone) - 1) // 2
    assert found.reason.endswith(".")


def test_texts_are_compared_apart_from_the_event_loop() -> None:
    texts = ["I am OneSeek.", "I am OneSeek!", "Jag är OneSeek."]
    answers = [ComparedAnswer(v, "sv" if v == 2 else "en", text) for v, text in enumerate(texts)]
    found = asyncio.run(find_consensus(Exchange("id"), answers, OneThread()))
    assert (found.measure, found.base, found.threshold) == ("chrF", None, AGREES)
    assert found.clusters == ((0, 1), (2,))
    assert found.pairs[0].agreement is not None
    assert found.pairs[0].agreement > 0.8
