from __future__ import annotations

import json
from pathlib import Path

import pytest

from bench.cli.dispatch import main
from bench.scale.command import MODEL
from bench.scale.measure import ModelCheck
from bench.scale.times import StepTimes, write_times

Out = pytest.CaptureFixture[str]
NOBODY = "http://127.0.0.1:9"


@pytest.fixture
def times(tmp_path: Path) -> str:
    path = tmp_path / "times.json"
    write_times(path, StepTimes((1, 8), (0.01, 0.02), 0.0001, 0.01, 0.003), {})
    return str(path)


def test_the_smallest_fleet_and_that_it_is_a_model(times: str, capsys: Out, tmp_path: Path) -> None:
    out = tmp_path / "scale.json"
    flags = f"--times {times} --rate 40 --seconds 5 --price 0.5 --out {out}"
    assert main(["scale", *flags.split()]) == 0
    printed = capsys.readouterr().out
    told = json.loads(printed.splitlines()[-1])
    assert MODEL in printed
    assert told["model"] == MODEL
    assert told["needed"] == told["tries"][-1]["replicas"] > 1
    assert told["tries"][-1]["cost_per_million_tokens"] > 0
    assert json.loads(out.read_text())["needed"] == told["needed"]


def test_named_sizes_that_do_not_keep_the_level_are_1(times: str, capsys: Out) -> None:
    assert main(["scale", "--times", times, *["--rate", "200", "--seconds", "3", "--replicas", "1,2"]]) == 1
    told = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert [one["replicas"] for one in told["tries"]] == [1, 2]
    assert told["needed"] is None


def test_autoscaling_and_a_trace(times: str, capsys: Out, tmp_path: Path) -> None:
    trace = tmp_path / "trace.csv"
    rows = [f"2024-05-10 00:00:{number // 10:02}.{number % 10},200,40" for number in range(300)]
    trace.write_text("\n".join(["TIMESTAMP,ContextTokens,GeneratedTokens", *rows]))
    flags = f"--trace {trace} --replicas 1 --autoscale 9 --target-load 2 --start-seconds 1 --itl-ms 99"
    assert main(["scale", "--times", times, *flags.split()]) == 0
    (one,) = json.loads(capsys.readouterr().out.splitlines()[-1])["tries"]
    assert one["figures"]["requests"] == 300
    assert one["figures"]["most_replicas"] > 1


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        ("--replicas two", "'two'"),
        ("--replicas 0", "replicas 0"),
        ("--replicas 1001", "replicas 1001"),
        ("--rate 0", "rate"),
        ("--turns 0", "turns"),
        ("--price=-1", "--price"),
        ("--autoscale 4", "--autoscale"),
        ("--replicas 4 --autoscale 4", "--autoscale"),
        ("--prompt-tokens 0", "--prompt-tokens"),
        ("--max-num-seqs 0", "max_num_seqs"),
        ("--load-seconds=-1", "load"),
        (f"--url {NOBODY}", "--times"),
        ("--check", "--check"),
    ],
)
def test_a_mistake_names_the_word_and_is_2(arguments: str, named: str, times: str, capsys: Out) -> None:
    assert main(["scale", "--times", times, *arguments.split()]) == 2
    assert named in capsys.readouterr().err


def test_a_service_level_that_nothing_can_keep_is_refused(times: str, capsys: Out) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["scale", "--times", times, "--ttft-ms", "0"])
    assert ended.value.code == 2
    assert "--ttft-ms" in capsys.readouterr().err


def test_times_that_are_not_there_are_2(capsys: Out) -> None:
    assert main(["scale", "--times", "none.json"]) == 2
    assert "none.json" in capsys.readouterr().err


def test_a_server_that_does_not_answer_is_1(capsys: Out) -> None:
    assert main(["scale", "--url", NOBODY]) == 1
    assert NOBODY in capsys.readouterr().err


def test_a_check_holds_within_15_percent() -> None:
    assert ModelCheck(1, 0.5, 2.0, 100, 0.1, 114, 0.086).holds
    assert not ModelCheck(1, 0.5, 2.0, 100, 0.1, 116, 0.1).holds
    assert not ModelCheck(1, 0.5, 2.0, 100, 0.1, 100, 0.084).holds
