"""Shingles, their similarity, and how well bands find what is alike."""

from __future__ import annotations

import random

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from adapters.datasets.minhash import bands, key, shingles, similarity

TEXT = st.lists(st.sampled_from(["en", "två", "tre", "fyra", "fem"]), max_size=12).map(" ".join)


def reference(text: str) -> set[tuple[str, ...]]:
    words = text.split()
    return {tuple(words[n : n + 3]) for n in range(max(1, len(words) - 2))}


@settings(deadline=None)
@given(TEXT, TEXT)
def test_similarity_is_jaccards_over_word_triples(one: str, other: str) -> None:
    a, b = reference(one), reference(other)
    found = similarity(shingles(one), shingles(other))
    assert np.isclose(found, len(a & b) / len(a | b))


@settings(deadline=None)
@given(TEXT)
def test_case_width_and_spaces_make_no_difference(text: str) -> None:
    other = f"  {text.upper()}\t"
    assert key(text) == key(other)
    assert similarity(shingles(text), shingles(other)) == 1.0


def test_every_text_has_a_shingle_and_a_long_one_few() -> None:
    assert len(shingles("")) == len(shingles("?!")) == len(shingles("a b")) == 1
    long = " ".join(map(str, range(50_000)))
    assert len(shingles(long)) == 4096
    assert similarity(shingles(long), shingles(long + " och slut")) > 0.99


def test_bands_find_what_is_alike_as_often_as_the_theory_says() -> None:
    rng = random.Random(3)
    alike = {0.9: 0, 0.5: 0, 0.1: 0}
    for wanted in alike:
        for _ in range(300):
            shared = [rng.getrandbits(64) for _ in range(200)]
            cut = round(200 * 2 * wanted / (1 + wanted))
            one = np.unique(np.array(shared, np.uint64))
            other = np.array(shared[:cut] + [rng.getrandbits(64) for _ in range(200 - cut)], np.uint64)
            first, second = bands([one, np.unique(other)])
            alike[wanted] += bool((first == second).any())
    assert alike[0.9] == 300
    assert 150 < alike[0.5] < 240
    assert alike[0.1] <= 6


def test_bands_do_not_depend_on_what_stands_beside() -> None:
    rng = random.Random(4)
    texts = [shingles(" ".join(rng.choices("abcdefgh", k=rng.randint(0, 3000)))) for _ in range(40)]
    together = bands(texts)
    assert together.shape == (40, 16)
    for text, row in zip(texts, together, strict=True):
        assert (bands([text])[0] == row).all()
