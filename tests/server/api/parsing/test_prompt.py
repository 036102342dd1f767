"""Places are counted as a request will take them, before its fields are checked."""

from __future__ import annotations

import pytest

from server.api.parsing.prompt import count_places


@pytest.mark.parametrize(
    ("value", "places"),
    [
        ({}, 1),
        ({"prompt": "a"}, 1),
        ({"prompt": "a", "n": 3}, 3),
        ({"prompt": ["a", "b"]}, 2),
        ({"prompt": ["a", "b"], "n": 3}, 6),
        ({"prompt": [1, 2, 3], "n": 2}, 2),
        ({"prompt": [[1, 2], [3]], "n": 2}, 4),
        ({"prompt": [], "n": 2}, 2),
        ({"n": True}, 1),
        ({"n": -4}, 1),
        ({"n": "5"}, 1),
    ],
)
def test_each_choice_of_each_prompt_is_a_place(value: dict[str, object], places: int) -> None:
    assert count_places(value, "prompt") == places


def test_without_prompts_choices_count_alone() -> None:
    assert count_places({"n": 2, "prompt": ["a", "b"]}, "") == 2
