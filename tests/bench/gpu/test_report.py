from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

from bench.gpu.record import ResultFile
from bench.gpu.report import goals, report_lines, summary, with_limits
from bench.gpu.scenarios import Point
from bench.host import parse_gpu
from bench.random_model import PRESETS

SETTINGS: dict[str, Any] = {"preset": "7b", "config": asdict(PRESETS["7b"]), "prompt": 512, "tokens": 128}
H200 = {"gpu": asdict(parse_gpu("0", "NVIDIA H200, 143771, 580.1", "CUDA Version: 13.0")), "cpu": "a CPU"}


def row(server: str, scenario: str, streams: int, rate: float, **other: Any) -> dict[str, Any]:
    three = {"p50": 10.0, "p95": 11.5, "p99": 12.25}
    base = {"server": server, "scenario": scenario, "streams": streams, "tokens_per_second": rate}
    base |= {"ttft_ms": three, "itl_ms": three, "decode_step_ms": 5.0, "memory_mib": 129000}
    return base | {"requests": 100, "failed": 0, "faults": []} | other


def record(tmp_path: Path, rows: list[dict[str, Any]], host: dict[str, Any] = H200) -> ResultFile:
    return ResultFile(tmp_path / "r.json", SETTINGS, host | {"versions": {}, "oneseek": "abc"}, points=rows)


def verdicts(rows: list[dict[str, Any]]) -> dict[str, tuple[str, float | None, str]]:
    return {
        goal.name: (goal.verdict, goal.worst and round(goal.worst, 3), goal.where) for goal in goals(rows)
    }


def test_goals_are_judged_by_their_worst_point(tmp_path: Path) -> None:
    rows = [
        row("oneseek", "base", 64, 4000),
        row("oneseek", "idle", 64, 3960),
        row("oneseek", "two", 64, 3800),
        row("oneseek", "eight", 64, 3640),
        row("oneseek", "thrash", 64, 100),
        row("oneseek", "base", 256, 7000),
        row("vllm", "base", 64, 3900),
        row("vllm", "base", 256, 6200),
        row("vllm", "thrash", 64, 110),
    ]
    found = verdicts(with_limits(record(tmp_path, rows)))
    assert found == {
        "mixed adapters / base only": ("missed", 0.91, "eight, 64"),
        "idle LoRA / base only": ("met", 0.99, "idle, 64"),
        "OneSeek / vLLM at every point": ("missed", 0.909, "thrash, 64"),
        "OneSeek / vLLM at 256 streams": ("missed", 1.129, "base, 256"),
        "decode step at 64 streams, share of limit": ("met", 0.794, "base, 64"),
        "requests answered in full": ("met", 1.0, "all"),
    }


def test_what_was_not_measured_is_neither_met_nor_missed(tmp_path: Path) -> None:
    found = verdicts([row("vllm", "base", 1, 130)])
    assert [verdict for verdict, _, _ in found.values()] == ["not measured"] * 5 + ["met"]
    assert {verdict for verdict, _, _ in verdicts([]).values()} == {"not measured"}


def test_one_failed_request_is_a_missed_goal() -> None:
    found = verdicts([row("oneseek", "base", 1, 130, failed=1)])
    assert found["requests answered in full"] == ("missed", 0.99, "all")


def test_limits_stand_beside_each_figure_on_a_known_device(tmp_path: Path) -> None:
    base, mixed = with_limits(
        record(tmp_path, [row("vllm", "base", 64, 4000), row("vllm", "eight", 64, 4000)])
    )
    # (7.114e9 · 2 + 64 · 576 · 131072) bytes / 4.8e12 bytes/s; eight adapters of 13.6M and 6.8M add 0.034 ms.
    assert base["limit_decode_step_ms"] == pytest.approx(3.971, abs=2e-3)
    assert base["decode_share_of_limit"] == pytest.approx(0.794, abs=1e-3)
    assert mixed["limit_decode_step_ms"] - base["limit_decode_step_ms"] == pytest.approx(0.034, abs=2e-3)
    # Operations: 64 prompts of 7.216e12, 127 steps of 64 · 1.453e10; 5.80e14 / 989e12 per s take 0.586 s.
    # A prompt and 127 steps one after another would take 0.512 s, so arithmetic holds: 8192 / 0.586.
    assert base["limit_tokens_per_second"] == pytest.approx(13_970, rel=2e-3)
    assert base["share_of_limit"] == pytest.approx(4000 / base["limit_tokens_per_second"], abs=1e-3)
    assert base["limit_decode_by"] == "bandwidth"


def test_an_unknown_device_has_no_limit(tmp_path: Path) -> None:
    unknown = {"gpu": asdict(parse_gpu("0", "NVIDIA Something New, 1, 1", "")), "cpu": "a CPU"}
    found = record(tmp_path, [row("vllm", "base", 64, 4000)], unknown)
    assert "limit_tokens_per_second" not in with_limits(found)[0]
    assert any(line.startswith("NVIDIA Something New: ") for line in report_lines(found))
    assert summary(found)["limits"] == "unknown"


def test_without_a_gpu_goals_are_not_judged(tmp_path: Path) -> None:
    found = record(tmp_path, [row("oneseek", "base", 1, 9), row("vllm", "base", 1, 8)], H200 | {"gpu": None})
    told = "\n".join(report_lines(found))
    assert "(a CPU): " in told
    assert "missed" not in told
    assert " met" not in told
    assert summary(found)["goals"]["OneSeek / vLLM at every point"]["verdict"] == "not judged without a GPU"


def test_a_point_without_a_steady_state_still_has_its_line(tmp_path: Path) -> None:
    none = {"p50": None, "p95": None, "p99": None}
    broken = row("vllm", "base", 64, 0, failed=100, decode_step_ms=None, ttft_ms=none, itl_ms=none)
    found = record(tmp_path, [broken | {"tokens_per_second": None}, row("oneseek", "base", 64, 4000)])
    lines = [line for line in report_lines(found) if line.startswith("base")]
    assert len(lines) == 2
    assert "-/-/-" in lines[1]
    assert "unknown" in lines[1]


def test_the_summary_is_one_line_of_json(tmp_path: Path) -> None:
    found = record(tmp_path, [row("oneseek", "base", 64, 4000)])
    text = json.dumps(summary(found))
    assert "\n" not in text
    assert json.loads(text)["limits"]["name"] == "H200 SXM"


def test_a_record_comes_back_as_it_was_saved(tmp_path: Path) -> None:
    saved = record(tmp_path, [row("oneseek", "base", 64, 4000)])
    saved.notes.append("a note")
    saved.save()
    loaded = ResultFile.load(saved.path)
    assert loaded == saved
    assert loaded.find(Point("oneseek", "base", 64)) == saved.points[0]
    assert loaded.find(Point("vllm", "base", 64)) is None
    assert list(tmp_path.iterdir()) == [saved.path]


def test_a_record_of_something_else_is_refused(tmp_path: Path) -> None:
    saved = record(tmp_path, [])
    saved.check(SETTINGS, saved.host)
    with pytest.raises(ValueError, match=r"prompt 512.* 64"):
        saved.check(SETTINGS | {"prompt": 64}, saved.host)
    with pytest.raises(ValueError, match=r"oneseek 'abc'.*'def'"):
        saved.check(SETTINGS, saved.host | {"oneseek": "def"})
    for text in ("[]", "{}", "half a li"):
        (tmp_path / "other.json").write_text(text)
        with pytest.raises(ValueError, match=r"other\.json"):
            ResultFile.load(tmp_path / "other.json")


def test_what_nvidia_smi_prints() -> None:
    banner = "| NVIDIA-SMI 580.159.03   Driver Version: 580.159.03   CUDA Version: 13.0  |"
    gpu = parse_gpu("0", "NVIDIA H200, 143771, 580.159.03", banner)
    assert (gpu.name, gpu.memory_mib, gpu.driver, gpu.cuda) == ("NVIDIA H200", 143771, "580.159.03", "13.0")
    assert parse_gpu("1", "Tesla T4, 15360, 535.1", "").cuda == "unknown"
