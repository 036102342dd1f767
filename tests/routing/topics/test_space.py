from __future__ import annotations

import numpy as np
import pytest

from routing.topics.build_space import key_of
from routing.topics.space import DIMENSIONS, load_space


def test_the_space_holds_a_direction_for_each_word() -> None:
    space = load_space()
    assert space.vectors.shape == (len(space.usual), DIMENSIONS)
    assert max(space.rows.values()) == len(space.usual) - 1
    assert np.allclose(np.linalg.norm(space.vectors, axis=1), 1, atol=1e-5)
    with pytest.raises(ValueError, match="read-only"):
        space.vectors[0, 0] = 1


@pytest.mark.parametrize(
    ("examples", "near", "far"),
    [
        (("recipe", "butter", "oven"), "buttermilk", "javascript"),
        (("contract", "court", "lawyer"), "custody", "noodles"),
        (("flight", "hotel", "passport"), "luggage", "compiler"),
    ],
)
def test_words_are_likelier_in_a_topic_of_words_like_them(
    examples: tuple[str, ...], near: str, far: str
) -> None:
    space = load_space()
    ratios = space.ratios([dict.fromkeys(examples, 1.0)])
    assert ratios[space.rows[near]] > 0.3 > 0 > ratios[space.rows[far]]


def test_unknown_words_have_no_place_and_examples_without_any_tell_nothing() -> None:
    space = load_space()
    rows, weights = space.places({"qqqqq": 1.0, "bread": 0.5})
    assert (rows, weights.tolist()) == ([space.rows["bread"]], [0.5])
    assert not space.ratios([{"qqqqq": 1.0}]).any()


@pytest.mark.parametrize(("word", "key"), [("hello", 5983625672228268878), ("apple", 8566208034543834098)])
def test_keys_are_those_of_the_vocabulary(word: str, key: int) -> None:
    assert key_of(word) == key
