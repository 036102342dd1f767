"""What a check of data sets finds, against what is known to be in them."""

from __future__ import annotations

import gzip
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from adapters.datasets.check import Check, DataChangedError, Problem
from adapters.datasets.lines import FileFormError
from adapters.datasets.stats import measure_dataset
from adapters.training.finetune.conversations import read_conversations

WORDS = [f"{a}{b}" for a in ("ka", "lo", "mi", "nu", "re", "så", "tö") for b in ("ra", "sen", "vik", "dal")]


def sentence(rng: random.Random, length: int = 30) -> str:
    return " ".join(rng.choices(WORDS, k=length))


def row(question: str, answer: str, **notes: Any) -> dict[str, Any]:
    return {"instruction": question, "input": "", "output": answer, **notes}


def write(path: Path, rows: Iterable[dict[str, Any] | str]) -> Path:
    texts = (item if isinstance(item, str) else json.dumps(item, ensure_ascii=False) for item in rows)
    path.write_text("".join(f"{text}\n" for text in texts), encoding="utf-8")
    return path


def found(check: Check) -> list[tuple[str, int, str]]:
    problems = list(check.problems())
    assert sum(check.summary.problems.values()) == len(problems)
    assert check.summary.clean == (not problems)
    return [(problem.path.name, problem.line, problem.kind) for problem in problems]


def test_each_kind_of_mistake_is_told_with_its_line(tmp_path: Path) -> None:
    data = write(
        tmp_path / "a.jsonl",
        ["", "{", row("Vem?", "Jag."), row("", "Jag."), row("VEM?", " jag. "), "x" * (5 << 20)],
    )
    check = Check([data])
    assert found(check) == [
        ("a.jsonl", 2, "json"),
        ("a.jsonl", 4, "fields"),
        ("a.jsonl", 6, "too-long"),
        ("a.jsonl", 5, "duplicate"),
    ]
    assert (check.summary.files, check.summary.examples) == (1, 2)


def test_a_problem_says_where_and_what(tmp_path: Path) -> None:
    assert str(Problem(tmp_path, 3, "fields", "output is empty")) == f"{tmp_path}:3: fields: output is empty"


def test_a_file_without_an_example_is_wrong(tmp_path: Path) -> None:
    assert found(Check([write(tmp_path / "a.jsonl", [])])) == [("a.jsonl", 0, "empty")]


ROWS = [row(f"Vem är {name}?", f"Det är {name}.") for name in ("Anna", "Bo")]
LINES = "\n".join(json.dumps(item) for item in ROWS)


@pytest.mark.parametrize(
    ("data", "named"),
    [
        (json.dumps(ROWS).encode(), "JSON array"),
        (json.dumps(ROWS, indent=4).encode(), "JSON array"),
        (b"\xef\xbb\xbf[\r\n\r\n  {}]", "JSON array"),
        (LINES.encode("utf-16"), "UTF-16"),
        (gzip.compress(LINES.encode()), "gzip"),
        (b"PAR1\x15\x00PAR1", "Parquet"),
        (b"PK\x03\x04\n\n\n", "ZIP"),
    ],
)
def test_a_file_of_another_form_is_told_once_with_what_to_do(tmp_path: Path, data: bytes, named: str) -> None:
    path, good = tmp_path / "a.json", write(tmp_path / "good.jsonl", ROWS)
    path.write_bytes(data)
    check = Check([path, good])
    problem, empty = check.problems()
    assert (problem.path, problem.line, problem.kind, empty.kind) == (path, 0, "json", "empty")
    assert named in problem.reason
    assert check.summary.examples == 2
    for read in (measure_dataset, read_conversations):
        with pytest.raises(FileFormError, match=named):
            read(path)


def test_a_repeat_is_found_across_files_and_shapes(tmp_path: Path) -> None:
    chat = {"messages": [{"role": "user", "content": "Vem?"}, {"role": "assistant", "content": "Jag."}]}
    first = write(tmp_path / "a.jsonl", [row("Vem?", "Jag.")])
    second = write(tmp_path / "b.jsonl", [chat])
    assert found(Check([first, second])) == [("b.jsonl", 1, "duplicate")]


def test_same_question_with_another_answer_is_no_repeat(tmp_path: Path) -> None:
    rng = random.Random(0)
    rows = [row("Vem är du?", sentence(rng)) for _ in range(50)]
    assert found(Check([write(tmp_path / "a.jsonl", rows)])) == []


@pytest.mark.parametrize("seed", range(3))
def test_one_word_changed_is_found_and_half_the_words_are_not(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    rows = [row(sentence(rng, 8), sentence(rng, 60)) for _ in range(300)]
    near, far = list(rows), list(rows)
    wanted: list[tuple[str, int, str]] = []
    for line in range(200, 300):
        answer = rows[line - 200]["output"].split()
        one = [*answer[:30], "annat", *answer[31:]]
        near[line] = row(rows[line - 200]["instruction"], " ".join(one))
        far[line] = row(rows[line - 200]["instruction"], " ".join([*answer[:30], *sentence(rng).split()]))
        wanted.append(("near.jsonl", line + 1, "near-duplicate"))
    assert found(Check([write(tmp_path / "near.jsonl", near)])) == wanted
    assert found(Check([write(tmp_path / "far.jsonl", far)])) == []


def test_what_is_said_of_the_likeness_is_the_exact_jaccard_similarity(tmp_path: Path) -> None:
    base = [f"ord{n}" for n in range(42)]
    # 43 words with the question make 41 triples; changing the last word changes one: 40 shared of 42.
    data = write(tmp_path / "a.jsonl", [row("q", " ".join(base)), row("q", " ".join([*base[:-1], "annat"]))])
    (problem,) = Check([data]).problems()
    assert re.search(rf"{re.escape(str(data))}:1\b.*\b95%", problem.reason)
    assert found(Check([data], near=0.96)) == []


def test_leaks_are_told_on_the_line_of_the_tests(tmp_path: Path) -> None:
    rng = random.Random(5)
    rows = [row(sentence(rng, 8), sentence(rng, 60)) for _ in range(40)]
    training = write(tmp_path / "train.jsonl", rows)
    same_prompt = row(rows[3]["instruction"].upper(), "Ett annat svar.")
    nearly = row(rows[7]["instruction"] + " annat", rows[7]["output"])
    fresh = row(sentence(rng, 8), sentence(rng, 60))
    tests = write(tmp_path / "test.jsonl", [fresh, same_prompt, nearly, rows[9], fresh])
    assert found(Check([training], [tests])) == [
        ("test.jsonl", 2, "leak"),
        ("test.jsonl", 3, "near-leak"),
        ("test.jsonl", 4, "leak"),
        ("test.jsonl", 5, "duplicate"),
    ]
    assert found(Check([training, tests])) == [
        ("test.jsonl", 3, "near-duplicate"),
        ("test.jsonl", 4, "duplicate"),
        ("test.jsonl", 5, "duplicate"),
    ]


def test_a_leak_is_told_even_where_another_test_is_more_alike(tmp_path: Path) -> None:
    rng = random.Random(6)
    words = sentence(rng, 60).split()
    training = write(tmp_path / "train.jsonl", [row("q", " ".join(words))])
    one, both = [*words[:9], "annat", *words[10:]], [*words[:9], "annat", *words[10:-1], "sist"]
    tests = write(tmp_path / "test.jsonl", [row("a", " ".join(one)), row("b", " ".join(both))])
    assert found(Check([training], [tests])) == [
        ("test.jsonl", 1, "near-leak"),
        ("test.jsonl", 2, "near-leak"),
    ]


def test_answers_in_another_language_are_told_and_undecided_ones_are_not(tmp_path: Path) -> None:
    told = {"Jag.": "sv", "Me.": "en", "42": None, "Ich.": "xx"}
    rows = [row(f"Q{n}", answer) for n, answer in enumerate(told)]
    rows.append(row("Q9", "Me.", language="en"))
    data = write(tmp_path / "a.jsonl", rows)
    check = Check([data], languages=["sv"], detect=told.__getitem__)
    english, unknown = (problem.reason for problem in check.problems())
    assert re.search(r"\ben\b.*\bsv\b", english)
    assert re.findall(r"\b(?:en|sv|xx)\b", unknown) == ["sv"]
    assert found(Check([data], detect=told.__getitem__)) == []


def test_a_file_that_changes_meanwhile_is_told(tmp_path: Path) -> None:
    text = " ".join(WORDS)
    data = write(tmp_path / "a.jsonl", [row("q", text), row("q", text + " annat")])
    problems = Check([data]).problems(lambda done: None if done < 100 else data.write_text("{}"))
    with pytest.raises(DataChangedError) as caught:
        list(problems)
    assert caught.value.path == data


@pytest.mark.parametrize("near", [0, -1, 1.5, float("nan")])
def test_a_threshold_that_is_none_is_refused(near: float, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=rf"\bnear\b.* {near:g}\b"):
        Check([tmp_path], near=near)


def test_ten_thousand_rows_of_one_template_take_little_time_and_memory(tmp_path: Path) -> None:
    """Every row resembles every other, which quadratic comparison would not survive."""
    rows = (row(f"Vad är {n}?", " ".join([*WORDS, str(n), *WORDS[:9]])) for n in range(10_000))
    data = write(tmp_path / "a.jsonl", rows)
    code = (
        "import sys, resource; from pathlib import Path; from adapters.datasets.check import Check\n"
        "import numpy; before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "check = Check([Path(sys.argv[1])], near=0.6); list(check.problems())\n"
        "print(check.summary.problems['near-duplicate'],"
        " (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(data)], check=True, capture_output=True, text=True, timeout=60
    )
    near, megabytes = map(int, done.stdout.split())
    assert near > 9_950  # at 74% alike, 1 in 170 shares no band with any one other row
    assert megabytes < 100


def test_a_likeness_to_the_second_of_a_kind_is_found_past_the_first(tmp_path: Path) -> None:
    rng = random.Random(8)
    rows: list[dict[str, Any]] = []
    for _ in range(60):
        first = sentence(rng, 60).split()
        second = [*first[:45], *sentence(rng, 15).split()]
        rows += [row("q", " ".join(text)) for text in (first, second, [*second[:-1], "annat"])]
    data = write(tmp_path / "a.jsonl", rows)
    assert found(Check([data])) == [("a.jsonl", line, "near-duplicate") for line in range(3, 181, 3)]


def test_the_beginning_of_an_answer_tells_its_language(tmp_path: Path) -> None:
    heard: list[str] = []
    data = write(tmp_path / "a.jsonl", [row("q", "å" * 5000)])
    list(Check([data], languages=["sv"], detect=heard.append).problems())
    assert heard == ["å" * 300]
