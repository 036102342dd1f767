"""What a mistake in the command says, and what a gate returns."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from bench.cli.dispatch import main
from bench.report.document import report
from tests.bench.report.test_report import ABOUT, result

Out = pytest.CaptureFixture[str]
NOBODY = "http://127.0.0.1:9"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("run --scenario mixd", "'mixd'"),
        ("run --users 2 --rate 1", "--users"),
        ("run --url localhost:8000", "'localhost:8000'"),
        ("run --url ftp://a", "'ftp://a'"),
        ("run --url http://a:b", "'http://a:b'"),
        ("run --url http://", "'http://'"),
        (f"compare http://a:b {NOBODY}", "'http://a:b'"),
        ("run --prompts none.json", "none.json"),
        ("run --trace none.csv", "none.csv"),
        ("run --trace none.csv --users 2", "--trace"),
        ("run --trace none.csv --ramp", "--trace"),
        ("run --url http://a --start oneseek", "--start"),
        ("run --start llama", "'llama'"),
        ("run --adapter sv", "'sv'"),
        ("run --prompt-words 1", "length"),
        ("run --limit-device h101 --limit-base mistral-7b", "'h101'"),
        ("run --limit-device h100", "--limit-base"),
        ("run --limit-device h100 --limit-base none", "'none'"),
        ("run --limit-tokens-per-second 0", "--limit-tokens-per-second"),
        ("run --python vlm=/python", "--python"),
        ("tax --limit-device h101", "'h101'"),
        (f"compare {NOBODY} {NOBODY} --limit-device h100", "--limit-base"),
        ("tax --states off,of", "'of'"),
        (f"tax --url {NOBODY} --states thrash", "thrash"),
        ("tax --rate 3", "--users"),
        ("compare nowhere nothing", "'nowhere'"),
        ("compare a.json b.json", "a.json"),
        (f"compare {NOBODY} {NOBODY} --rounds 3", "3 rounds"),
        (f"compare {NOBODY} {NOBODY} --on speed", "'speed'"),
        (f"compare {NOBODY} {NOBODY} --threshold 2", "--threshold"),
        (f"compare {NOBODY} {NOBODY} --endpoint chat,chats", "'chats'"),
        (f"compare {NOBODY} {NOBODY} --engine-option seed", "'seed'"),
        ("compare oneseek oneseek --engine-option seed=1", "--engine-option"),
        (f"compare {NOBODY} b.json", "report"),
        ("compare commit:none commit:HEAD", "'none'"),
        ("report none.json", "none.json"),
    ],
)
def test_a_mistake_names_the_word_and_is_2(
    arguments: str,
    named: str,
    capsys: Out,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
) -> None:
    monkeypatch.chdir(tmp_path)
    assert main(arguments.split()) == 2
    told = capsys.readouterr()
    assert named in told.err
    assert not told.out


@pytest.mark.parametrize("verb", ["run", "tax", f"compare {NOBODY}"])
def test_a_server_that_does_not_answer_is_1(verb: str, capsys: Out) -> None:
    flags = [NOBODY] if verb.startswith("compare") else ["--url", NOBODY]
    assert main([*verb.split(), *flags]) == 1
    assert NOBODY in capsys.readouterr().err


def write(path: Path, rates: list[float], limit: float | None = None) -> str:
    plain = result()
    total = plain.figures.total
    rounds = [
        replace(
            plain,
            figures=replace(plain.figures, total=replace(total, output_tokens_per_second=rate)),
        )
        for rate in rates
    ]
    path.write_text(json.dumps(report(ABOUT, rounds, [], limit)))
    return str(path)


def test_reports_are_compared_and_a_slower_one_fails(tmp_path: Path, capsys: Out) -> None:
    before = write(tmp_path / "a.json", [100.0, 101, 99, 100, 102, 98, 100])
    same = write(tmp_path / "b.json", [100.0, 102, 99, 101, 100, 98, 99])
    slow = write(tmp_path / "c.json", [80.0, 81, 79, 80, 82, 78, 80])
    assert main(["compare", before, same]) == 0
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert told["passed"]
    (point,) = told["points"]
    assert point["ratios"]["tokens_per_second"]["low"] > 0.95
    assert point["share_of_limit"] == {"a": None, "b": None}
    assert main(["compare", before, slow]) == 1
    assert not json.loads(capsys.readouterr().out.splitlines()[-1])["passed"]
    assert main(["compare", before, slow, "--threshold", "0.75"]) == 0
    assert main(["compare", before, slow, "--gate", "worse"]) == 1
    limited = write(tmp_path / "e.json", [100.0, 101, 99, 100, 102, 98, 100], limit=200.0)
    assert main(["compare", before, limited]) == 0
    (point,) = json.loads(capsys.readouterr().out.splitlines()[-1])["points"]
    assert point["share_of_limit"]["b"] == 0.5
    other = tmp_path / "f.json"
    other.write_text(Path(before).read_text().replace('"label": "2 users"', '"label": "4 users"'))
    assert main(["compare", before, str(other)]) == 2
    told = capsys.readouterr()
    assert "'2 users'" in told.err
    assert "'4 users'" in told.err
    few = write(tmp_path / "d.json", [100.0] * 6)
    assert main(["compare", before, few]) == 2


def test_the_scenarios_are_listed(capsys: Out) -> None:
    assert main(["scenarios"]) == 0
    listed = capsys.readouterr().out
    assert main(["scenarios", "--json"]) == 0
    for scenario in json.loads(capsys.readouterr().out):
        assert scenario["name"] in listed


def test_a_page_is_written_again(tmp_path: Path) -> None:
    path = write(tmp_path / "report.json", [100.0])
    assert main(["report", path]) == 0
    assert (tmp_path / "report.html").read_text().startswith("<!doctype html>")


@pytest.mark.parametrize(
    "scenarios",
    ["{}", "[{}]", '[{"name": "a", "failed": false, "load": {"label": "x"}, "figures": {"total": 1}}]'],
)
def test_a_damaged_report_gives_no_page(tmp_path: Path, capsys: Out, scenarios: str) -> None:
    path = tmp_path / "report.json"
    path.write_text(f'{{"schema": "oneseek-bench/1", "scenarios": {scenarios}}}')
    assert main(["report", str(path)]) == 2
    assert "report.json" in capsys.readouterr().err
    assert not (tmp_path / "report.html").exists()


def test_a_result_that_no_file_takes_is_printed(tmp_path: Path, capsys: Out) -> None:
    before = write(tmp_path / "a.json", [100.0] * 7)
    assert main(["compare", before, before, "--out", str(tmp_path)]) == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["passed"]
    assert main(["compare", before, before, "--out", str(tmp_path / "new" / "b.json")]) == 0
    assert json.loads((tmp_path / "new" / "b.json").read_text())["passed"]
    # The folder of a report is made before anything is measured.
    assert main(["run", "--url", NOBODY, "--out", before]) == 1
    assert "a.json" in capsys.readouterr().err


def test_a_run_that_ends_early_leaves_no_folder(tmp_path: Path) -> None:
    assert main(["run", "--url", NOBODY, "--out", str(tmp_path / "new")]) == 1
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize(
    "flag",
    [
        *("--users 0", "--users -1", "--users 1.5", "--users many", "--requests 0", "--rate 0", "--rate nan"),
        *(
            "--seconds inf",
            "--seconds nan",
            "--burstiness 0",
            "--processes 0",
            "--timeout 0",
            "--rounds 0",
            "--slots 0",
        ),
        *("--prompt-words nan", "--answer-tokens -1", "--ttft-ms 0", "--itl-ms -5"),
    ],
)
def test_a_number_that_is_not_above_zero_is_refused(flag: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["run", "--url", NOBODY, *flag.split()])
    assert ended.value.code == 2
    assert flag.split()[0] in capsys.readouterr().err


def test_of_a_list_every_number_is_above_zero(capsys: Out) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["compare", NOBODY, NOBODY, "--users", "4,0"])
    assert ended.value.code == 2
    assert "--users" in capsys.readouterr().err
