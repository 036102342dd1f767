"""The suite's own prompts, and those that a user brings."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from bench.text.brought import read_sharegpt, read_trace
from bench.text.prompts import FILES, LengthSpread, count_words, prompt, texts


@pytest.mark.parametrize("language", FILES)
@pytest.mark.parametrize("words", [30, 200, 1500])
def test_a_prompt_has_about_the_words_that_were_asked_for(language: str, words: int) -> None:
    text = prompt(language, words, 1, Random(words))
    assert abs(count_words(text) - words) <= 12
    assert text.endswith("?") or text.splitlines()[-1].endswith((".", "?"))


def test_prompts_are_seeded_and_no_two_are_alike() -> None:
    first, again = ([prompt("sv", 20, n, Random(n)) for n in range(200)] for _ in range(2))
    assert first == again
    assert len({text[:12] for text in first}) == 200


def test_both_languages_hold_as_much() -> None:
    english, swedish = texts("en"), texts("sv")
    assert len(english.questions) == len(swedish.questions) >= 30
    assert len(english.passages) == len(swedish.passages) >= 20
    assert len(set(english.passages)) == len(english.passages)


def test_a_language_that_is_not_held_is_named() -> None:
    with pytest.raises(ValueError, match="'de'"):
        texts("de")


def test_lengths_follow_their_distribution() -> None:
    spread, random = LengthSpread(median=40, sigma=0.5, least=10, most=100), Random(1)
    drawn = sorted(spread.draw(random) for _ in range(2000))
    assert 38 <= drawn[1000] <= 42
    assert drawn[0] >= 10
    assert drawn[-1] == 100
    assert LengthSpread(7, 0, 7, 7).draw(random) == 7
    assert spread.at_most(20) == LengthSpread(20, 0.5, 10, 20)
    assert spread.at_most(500) is spread


@pytest.mark.parametrize("wrong", [(5, 0.1, 10, 20), (0, 0.1, 0, 20), (15, -1, 10, 20)])
def test_a_length_that_contradicts_itself_is_refused(wrong: tuple[float, float, int, int]) -> None:
    with pytest.raises(ValueError, match="length"):
        LengthSpread(*wrong)


def test_sharegpt_gives_first_questions(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    path.write_text(
        '[{"conversations": [{"from": "system", "value": "s"}, {"from": "human", "value": "Hej?"},'
        ' {"from": "gpt", "value": "Hej!"}]}, {"conversations": [{"from": "gpt", "value": "x"}]}]'
    )
    assert read_sharegpt(path) == ["Hej?"]
    path.write_text('{"messages": [{"role": "user", "content": "One?"}]}\n\n')
    assert read_sharegpt(path) == ["One?"]
    path.write_text('{"messages": []}\n')
    with pytest.raises(ValueError, match=r"chats\.json"):
        read_sharegpt(path)
    path.write_text('{"messages": []}\nnonsense\n')
    with pytest.raises(ValueError, match=r"chats\.json:2"):
        read_sharegpt(path)


def test_sharegpt_files_of_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "chats.json"
    path.write_text('\ufeff[{"conversations": [{"from": "human", "value": "Hej?"}]}]', encoding="utf-8")
    assert read_sharegpt(path) == ["Hej?"]
    odd: tuple[bytes, ...] = (
        b"\xff\xfe[\0",
        b"[" * 100_000,
        b"[{",
        b'[{"conversations": {"a": 1}}, {"conversations": ["x"]}, 7]',
    )
    for content in odd:
        path.write_bytes(content)
        with pytest.raises(ValueError, match=r"chats\.json"):
            read_sharegpt(path)
    with pytest.raises(ValueError, match=str(tmp_path)):
        read_sharegpt(tmp_path)


def test_a_trace_is_sorted_and_begins_at_zero(tmp_path: Path) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(
        "TIMESTAMP,ContextTokens,GeneratedTokens\n"
        "2023-11-16 18:15:47.5000000,374,44\n"
        "2023-11-16 18:15:46.0000000,396,109\n"
    )
    first, second = read_trace(path)
    assert (first.at, first.prompt_tokens, first.answer_tokens) == (0, 396, 109)
    assert second.at == pytest.approx(1.5)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ("TIMESTAMP,ContextTokens\n", "GeneratedTokens"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n", "any requests"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\nnever,1,1\n", ":2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:47,0,1\n", ":2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:47,inf,1\n", ":2"),
        ("TIMESTAMP,ContextTokens,GeneratedTokens\n2023-11-16 18:15:47,1\n", ":2"),
    ],
)
def test_a_trace_that_is_none_is_refused(tmp_path: Path, content: str, named: str) -> None:
    path = tmp_path / "trace.csv"
    path.write_text(content)
    with pytest.raises(ValueError, match=named):
        read_trace(path)
