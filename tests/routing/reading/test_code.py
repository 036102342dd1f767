from __future__ import annotations

import pytest

from routing.evaluate.texts import OWN, read_pairs
from routing.reading.clean import clean
from routing.reading.code import without_code

SNIPPETS = [code for _, code in read_pairs(OWN / "parts" / "code.tsv")]


def test_most_code_leaves_no_words() -> None:
    left = [code for code in SNIPPETS if len(clean(code).words.all) > 2]
    assert len(left) * 10 <= len(SNIPPETS), left


@pytest.mark.parametrize(
    "code",
    [
        "SELECT name FROM users WHERE age > 30;",
        "npm ERR! code ERESOLVE\nnpm ERR! unable to resolve dependency tree",
        'Traceback (most recent call last):\n  File "main.py", line 1, in <module>\nValueError: missing',
        "for item in items:\n    total += item.price",
        "const add = (a, b) => {\n  return a + b;\n};",
        "2024-05-01 12:00:03 ERROR Failed to connect to database",
    ],
)
def test_the_question_beside_code_is_left(code: str) -> None:
    assert clean(f"varför fungerar inte det här\n{code}").words.all == (
        *("varför", "fungerar", "inte", "det", "här"),
    )
    assert "code" in clean(code).stripped


@pytest.mark.parametrize("text", [text for _, text in read_pairs(OWN / "not-code.tsv")])
def test_prose_with_words_of_code_is_prose(text: str) -> None:
    assert without_code(text) == (text, 0)
