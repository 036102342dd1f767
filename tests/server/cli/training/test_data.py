"""`oneseek data`: what it prints, and its exit codes."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from adapters.mini.feed import DATASETS
from server.__main__ import main

Out = pytest.CaptureFixture[str]
SHIPPED = {
    "oneseek_identity_v1": ["--language", "en", "--language", "sv"],
    "oneseek_identity_en_v1": ["--language", "en"],
    "oneseek_identity_sv_v1": ["--language", "sv"],
}


def write(path: Path, *rows: dict[str, Any]) -> str:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return str(path)


@pytest.mark.parametrize("name", SHIPPED)
def test_the_shipped_data_is_in_order(name: str, capsys: Out) -> None:
    assert main(["data", "check", str(DATASETS / f"{name}.jsonl"), *SHIPPED[name]]) == 0, capsys.readouterr()
    out = capsys.readouterr().out
    assert re.fullmatch(r"\d+ \w+ in 1 \w+: .*\n", out)


def test_nothing_in_the_shipped_data_stands_twice(capsys: Out) -> None:
    assert main(["data", "check", *(str(DATASETS / f"{name}.jsonl") for name in SHIPPED)]) == 0
    assert re.fullmatch(r"282 \w+ in 3 \w+: .*\n", capsys.readouterr().out)


def test_the_wrong_language_is_told_line_by_line(capsys: Out) -> None:
    file = str(DATASETS / "oneseek_identity_sv_v1.jsonl")
    assert main(["data", "check", file, "--language", "en", "--json"]) == 1
    *problems, summary = map(json.loads, capsys.readouterr().out.splitlines())
    assert summary == {"files": 1, "examples": 124, "problems": {"language": 124}}
    assert [problem["line"] for problem in problems] == list(range(1, 125))
    assert problems[0] == {
        "file": file,
        "line": 1,
        "problem": "language",
        "reason": "the answer is in sv, not en",
    }


def test_leaks_into_a_test_set(tmp_path: Path, capsys: Out) -> None:
    train = write(tmp_path / "train.jsonl", {"instruction": "Vem?", "output": "Jag."})
    test = write(tmp_path / "test.jsonl", {"instruction": "vem?", "output": "Du."})
    assert main(["data", "check", train, "--test", test]) == 1
    leak, count = capsys.readouterr().out.splitlines()
    assert leak.startswith(f"{test}:1: leak: ")
    assert leak.endswith(f" {train}:1")
    assert re.fullmatch(r"2 \w+ in 2 \w+: 1 leak", count)


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["missing.jsonl"], 1),
        ([], 2),
        (["a.jsonl", "--near", "3"], 2),
        (["a.jsonl", "--language", "svenska"], 2),
        (["a.jsonl", "--language", "qq"], 2),
    ],
)
def test_a_mistake_in_the_command_is_one_line(
    arguments: list[str], code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(["data", "check", *arguments]) == code
    captured = capsys.readouterr()
    assert captured.err.startswith("oneseek: ")
    assert captured.err.count("\n") == 1


def test_stats_draws_and_counts_tokens_with_a_base(tiny_base: Path, capsys: Out) -> None:
    file = str(DATASETS / "oneseek_identity_v1.jsonl")
    assert main(["data", "stats", file, "--json", "--base-model", str(tiny_base)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["examples"], found["languages"]) == (74, {"sv": 37, "en": 37})
    assert found["lengths"]["tokens"]["smallest"] > found["lengths"]["messages"]["largest"]
    assert main(["data", "stats", file]) == 0
    drawn = capsys.readouterr().out
    assert "answer characters: median" in drawn
    assert "█" in drawn
    assert "tokens" not in drawn
