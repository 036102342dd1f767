from __future__ import annotations

import pytest

from routing.detect import ProfileDetector
from routing.system import MOST, answer_language, bounded


@pytest.mark.parametrize(
    ("system", "language"),
    [
        ("Svara alltid på svenska.", "sv"),
        ("Always answer in Swedish, whatever the user writes.", "sv"),
        ("You are a helpful assistant.", "en"),
        ("Du är en hjälpsam assistent för en bank.", "sv"),
        ("Never answer in English. Svara på svenska.", "sv"),
        ("Answer in Swedish or in English.", None),
        ("", None),
        ("42", None),
    ],
)
def test_the_language_to_answer_in(detector: ProfileDetector, system: str, language: str | None) -> None:
    assert answer_language(system, detector) == language


def test_a_long_prompt_is_read_at_both_ends(detector: ProfileDetector) -> None:
    system = f"{'x1 ' * 100_000}Svara alltid på svenska."
    assert len(bounded(system)) <= MOST + 1
    assert answer_language(system, detector) == "sv"
