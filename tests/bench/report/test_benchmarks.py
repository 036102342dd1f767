"""BENCHMARKS.md is what is made of the reports that are kept."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.report.benchmarks import BY_HAND, headlines, marks, rows, sections, written
from bench.report.headlines import ROWS

ROOT = Path(bench.__file__).parent.parent
PAGE = ROOT / "BENCHMARKS.md"
RATIO = {"ratio": 1.234, "low": 1.1, "high": 1.5, "rounds": 7, "paired": True}
ABOUT: dict[str, Any] = {
    "date": "2026-11-28T12:00:00+00:00",
    "command": "oneseek bench compare a b --out /tmp/x.json --users 4",
    "host": {
        "gpu": None, "cpu": "a CPU", "cores": 2, "memory_gib": 24, "kernel": "6", "python": "3.11.7",
        "versions": {"vllm": "0.32.0", "torch": None}, "oneseek": "abc",
    },
    "load_average": [1.5, 1, 1],
}  # fmt: skip
FIGURES = {"tokens_per_second": 100.0, "ttft_p50_ms": 5.0}
COMPARED = {"a": "vllm", "b": "oneseek", "scenario": "mixed", "threshold": 0.97}
POINT = {
    "load": {"users": 4, "rate": 0},
    "judged": {"tokens_per_second": True},
    "ratios": {"tokens_per_second": RATIO, "ttft_p50_ms": RATIO},
    "rounds": {"a": [FIGURES] * 7, "b": [FIGURES] * 7},
    "share_of_limit": {"a": 0.25, "b": None},
}
COMPARE = ABOUT | COMPARED | POINT | {"schema": "oneseek-bench-compare/1"}
POINTS_OF_TWO: list[dict[str, Any]] = [
    {"endpoint": "chat", **POINT}, {"endpoint": "completions", **POINT, "load": {"users": 1, "rate": 0}},
]  # fmt: skip
COMPARE_2 = ABOUT | COMPARED | {"schema": "oneseek-bench-compare/2", "points": POINTS_OF_TWO}
TAX = ABOUT | {
    "schema": "oneseek-bench-tax/1",
    "ratios": {"idle": {"tokens_per_second": RATIO}},
    "rounds": {"off": [FIGURES], "idle": [FIGURES]},
    "share_of_limit": {"off": 0.5, "idle": 0.25},
}
POINTS = [
    {"server": server, "scenario": scenario, "streams": 64, "tokens_per_second": rate}
    for server, scenario, rate in (
        ("oneseek", "idle", 120.0), ("oneseek", "two", 90.0), ("vllm", "idle", 100.0), ("vllm", "two", None),
    )
]  # fmt: skip
GPU = ABOUT | {
    "bench": "gpu",
    "host": ABOUT["host"] | {"gpu": {"name": "H100", "driver": "580"}},
    "commands": [{"date": ABOUT["date"], "command": "python -m bench.gpu --out /tmp/x.json --plan"}],
    "points": [{"failed": 0, "requests": 9, **point} for point in POINTS],
}


def keep(folder: Path, **reports: Any) -> Path:
    for name, report in reports.items():
        (folder / f"{name}.json").write_text(json.dumps(report))
    return folder


def test_the_page_is_that_of_the_kept_reports() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert written(page) == page, "run python -m bench.report.benchmarks --write BENCHMARKS.md"
    assert page.index(marks("headlines")[0]) < page.index("\n## "), "the table comes first"


def test_every_headline_leads_to_its_details() -> None:
    places = {"": PAGE.read_text(encoding="utf-8")}
    places[BY_HAND] = (ROOT / BY_HAND).read_text(encoding="utf-8")
    for row in rows():
        page, _, anchor = row.link.partition("#")
        heads = re.findall(r"^#+ (.+)$", places[page], re.MULTILINE)
        assert anchor in {re.sub(r"[^\w\- ]", "", head.lower()).replace(" ", "-") for head in heads}, row.link


def test_a_gpus_ratios_are_those_of_its_points(tmp_path: Path) -> None:
    first, second = rows(keep(tmp_path, a=GPU, b={"bench": "other"}))
    assert (first.ratio, first.machine, first.date) == ("1.20 at 64 streams", "H100", "2026-11-28")
    assert first.command == "`python -m bench.gpu --plan`", "without the places of one machine"
    assert (second.ratio, second.goal) == ("0.75 at 64 streams", "0.92")
    assert "| oneseek | two | 64 | 90 |" in sections(tmp_path)


def test_a_comparison_has_its_goal_its_interval_and_its_distance(tmp_path: Path) -> None:
    rate, first = rows(keep(tmp_path, a=COMPARE))
    assert (rate.ratio, rate.goal, rate.link) == ("1.23 (1.1 to 1.5)", "0.97", "#a")
    assert (first.goal, "TTFT" in first.says) == ("", True)
    made = sections(tmp_path)
    assert "A 25.0%." in made
    assert "| tokens_per_second | 100 | 100 | 1.23 (1.1 to 1.5) | higher |" in made
    assert "/tmp/x.json" not in made


def test_a_comparison_has_a_row_and_a_table_for_each_point(tmp_path: Path) -> None:
    found = rows(keep(tmp_path, a=COMPARE_2))
    assert [row.says.rpartition("mixed, ")[2] for row in found] == ["4 users"] * 2 + [
        "completions, 1 user"
    ] * 2
    made = sections(tmp_path)
    assert made.count("| tokens_per_second |") == 2
    assert "Completions, 1 user:" in made
    (alone,) = [POINTS_OF_TWO[:1]]
    assert "4 users:" not in sections(keep(tmp_path, a=COMPARE_2 | {"points": alone}))


def test_a_tax_has_every_state(tmp_path: Path) -> None:
    (idle,) = rows(keep(tmp_path, a=TAX))
    assert "idle / off" in idle.says
    made = sections(tmp_path)
    assert "off 50.0%, idle 25.0%" in made
    assert "| off | 100 |" in made


def test_what_was_recorded_by_hand_comes_last(tmp_path: Path) -> None:
    row = {name: name for name in ("says", "ratio", "goal", "date", "machine", "command", "section")}
    recorded = {"schema": "oneseek-bench-recorded/1", "rows": [row]}
    reports: dict[str, dict[str, Any]] = {"recorded": recorded, "2026-01-01-a": TAX, "2026-02-01-b": COMPARE}
    assert set(ROWS) > {str(report["schema"]) for report in reports.values()}
    found = rows(keep(tmp_path, **reports))
    assert [row.link for row in found] == ["#2026-02-01-b"] * 2 + ["#2026-01-01-a", f"{BY_HAND}#section"]
    assert f"[says]({BY_HAND}#section)" in headlines(found)


def test_a_document_without_a_place_is_refused() -> None:
    with pytest.raises(ValueError, match="headlines"):
        written("# Benchmarks\n")
    begin, end = marks("headlines")
    with pytest.raises(ValueError, match="details"):
        written(f"{begin}\n{end}\n")
