"""The suite against real servers on the mini base, each scenario short: `make test-bench`."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.scenarios.catalogue import SCENARIOS

pytestmark = pytest.mark.timeout(900)

ROOT = Path(bench.__file__).parent.parent
START = ("run", "--start", "oneseek")
SHORT = ("--users", "4", "--answer-tokens", "6", "--prompt-words", "10")
TORCH = importlib.util.find_spec("torch") is not None and importlib.util.find_spec("peft") is not None
ONE_THREAD = ("--server-option=--threads", "--server-option=1")


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Homes, graphs and random adapters, shared so that they are made once."""
    return tmp_path_factory.mktemp("bench")


def run(work: Path, *arguments: str, code: int = 0, seconds: float = 500) -> dict[str, Any]:
    """The last line of a command that ends with `code`."""
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    command = [sys.executable, "-m", "server", "bench", *arguments, "--work", str(work)]
    done = subprocess.run(
        command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=seconds, check=False
    )
    assert done.returncode == code, done.stdout[-3000:] + done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def reports(work: Path) -> dict[str, dict[str, Any]]:
    """Scenario → its part of a report, of one run of all but the largest."""
    names = [scenario.name for scenario in SCENARIOS if scenario.adapters < 128]
    flags = [word for name in names for word in ("--scenario", name)]
    out = work / "report"
    told = run(
        work, "run", "--start", "oneseek", *flags, *SHORT, "--requests", "12", *ONE_THREAD, "--out", str(out)
    )
    assert told["failed"] == []
    report = json.loads((out / "report.json").read_text())
    assert "<!doctype html>" in (out / "report.html").read_text()
    return {part["name"]: part for part in report["scenarios"]}


def test_every_scenario_completes_and_the_counters_agree(reports: dict[str, dict[str, Any]]) -> None:
    for name, part in reports.items():
        total = part["figures"]["total"]
        assert (total["failed"], total["requests"]) == (0, 12), name
        wanted = "within cancelled" if name == "cancel-storm" else "exact"
        assert part["reconciliation"]["verdict"] == wanted, (name, part["reconciliation"])
        assert part["client"][0]["cpu_seconds"] > 0


def test_oneseek_routes_and_reports_its_queue(reports: dict[str, dict[str, Any]]) -> None:
    mixed = reports["mixed"]["figures"]
    assert mixed["routing"] == {"judged": 12, "right": 12, "accuracy": 1.0}
    assert set(mixed["by_adapter"]) == {"oneseek-mini-en", "oneseek-mini-sv"}
    assert mixed["total"]["queue_ms"]["count"] == 12
    assert mixed["fairness"] > 0.5


def test_adapters_come_and_go_in_mid_run(reports: dict[str, dict[str, Any]]) -> None:
    swapped = [change["action"] for change in reports["hot-swap"]["changes"]]
    assert swapped == ["load", "load"], "the second in mid-run; it is unloaded after"
    churned = reports["adapter-churn"]["changes"]
    assert len(churned) >= 2
    assert all(change["status"] == 200 for change in churned)


def test_clients_that_hang_up_are_counted_on_both_sides(reports: dict[str, dict[str, Any]]) -> None:
    found = reports["cancel-storm"]["reconciliation"]
    assert found["client_cancelled"] > 0
    assert found["server_completed"] + found["server_cancelled"] == 12


def test_a_conversation_finds_its_history_in_the_cache(reports: dict[str, dict[str, Any]]) -> None:
    assert reports["conversation"]["figures"]["total"]["cached_tokens"] > 0


def test_many_adapters_share_eight_slots(work: Path) -> None:
    told = run(work, *START, "--scenario", "zipf-128", *SHORT, *ONE_THREAD, "--requests", "40",
               "--out", str(work / "many"))  # fmt: skip
    (part,) = told["scenarios"]
    assert (part["completed"], part["reconciliation"]) == (40, "exact")


def test_an_open_loop_and_a_ramp(work: Path) -> None:
    told = run(work, *START, "--rate", "8", "--seconds", "2", "--ramp", "--ttft-ms", "10000",
               "--itl-ms", "0.01", "--answer-tokens", "4", "--out", str(work / "ramp"))  # fmt: skip
    (found,) = told["ramps"]
    assert found["holds"] == 0
    assert len(told["scenarios"]) == 1


def test_a_server_beside_itself_is_not_worse(work: Path) -> None:
    told = run(work, "compare", "oneseek", "oneseek", *SHORT, *ONE_THREAD, "--requests", "12",
               "--gate", "worse", "--threshold", "0.5")  # fmt: skip
    assert told["passed"]
    (point,) = told["points"]
    assert len(point["rounds"]["a"]) == len(point["rounds"]["b"]) == 7


def test_every_state_of_the_tax(work: Path) -> None:
    told = run(work, "tax", *SHORT, "--requests", "12", "--rounds", "1", *ONE_THREAD)
    assert set(told["ratios"]) == {"merged", "idle", "one", "mixed", "thrash", "side-by-side"}
    assert all(0.05 < found["tokens_per_second"]["ratio"] < 20 for found in told["ratios"].values())


@pytest.mark.skipif(not TORCH, reason="the PEFT service needs torch and peft")
def test_the_service_that_loads_an_adapter_for_each_request(work: Path) -> None:
    told = run(work, "run", "--start", "peft-service", *SHORT, "--requests", "8", "--out", str(work / "peft"))
    (part,) = told["scenarios"]
    assert (part["completed"], part["failed"], part["reconciliation"]) == (8, 0, "no metrics")


def test_quality_of_the_adapters_that_ship(work: Path) -> None:
    flags = ("--questions", "4", "--tokens", "16", "--least", "routing=0.9", *ONE_THREAD)
    told = run(work, "quality", "--start", "oneseek", *flags)
    assert told["missed"] == {}
    voices = {(voice["voice"], voice["language"]): voice for voice in told["voices"]}
    assert len(voices) == 6
    assert voices["oneseek-mini-sv", "sv"]["identity"]["share"] >= 0.75
    assert voices["oneseek-mini", "sv"]["identity"]["share"] <= 0.25
    costs = {(cost["right"], cost["wrong"]): cost for cost in told["wrong_adapter"]}
    assert costs["oneseek-mini-sv", "oneseek-mini-en"]["identity"] >= 0.5
    assert costs["oneseek-mini-sv", "oneseek-mini"]["perplexity_ratio"] > 0


def test_measured_step_times_drive_the_model(work: Path) -> None:
    times, out = work / "times.json", work / "scale.json"
    flags = ("--max-num-seqs", "4", "--rate", "2", "--seconds", "20", "--ttft-ms", "5000", "--itl-ms", "500")
    told = run(work, "scale", "--start", "oneseek", "--measure", str(times), *flags, *ONE_THREAD)
    assert told["needed"] >= 1
    again = run(work, "scale", "--times", str(times), *flags, "--out", str(out))
    assert again["tries"] == told["tries"]
    assert json.loads(out.read_text())["times"]["rows"] == [1, 2, 4]
