from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil

import bench

ROOT = Path(bench.__file__).parent.parent
TINY = """
import sys
from bench.gpu.command import main
from bench.random_model import PRESETS, DecoderShape
PRESETS["28m"] = DecoderShape(64, 2, 4, 2, 16, 96, 300, 64)
main(sys.argv[1:])
"""


def command(work: Path, *options: str) -> list[str]:
    shape = ["--preset", "28m", "--prompt", "8", "--tokens", "4", "--streams", "1,2"]
    which = ["--servers", "oneseek", "--engine", "embedded", "--scenarios", "base,two"]
    return [sys.executable, "-c", TINY, *shape, *which, "--work", str(work), *options]


def environment() -> dict[str, str]:
    return {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(arguments, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=120)


def points(path: Path) -> list[dict[str, Any]]:
    return json.loads(path.read_text())["points"] if path.exists() else []


def test_a_run_that_is_killed_loses_no_point_and_ends_when_it_is_resumed(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    with subprocess.Popen(command(tmp_path, "--out", str(out)), cwd=ROOT, env=environment()) as process:
        deadline = time.monotonic() + 100
        while not (kept := points(out)) and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.02)
        servers = psutil.Process(process.pid).children()
        process.send_signal(signal.SIGKILL)
    assert 1 <= len(kept) < 4
    gone, alive = psutil.wait_procs(servers, timeout=20)
    assert (len(gone), alive) == (1, []), "the killed benchmark's server ends too"

    refused = run(*command(tmp_path, "--out", str(out)))
    assert f"--resume {out}" in refused.stderr
    refused = run(*command(tmp_path, "--resume", str(out), "--tokens", "5"))
    assert "tokens 4" in refused.stderr

    resumed = run(*command(tmp_path, "--resume", str(out)))
    assert resumed.returncode == 0, resumed.stderr
    whole = json.loads(resumed.stdout.splitlines()[-1])
    assert whole["points"][: len(kept)] == kept
    assert [(row["scenario"], row["streams"]) for row in whole["points"]] == [
        ("base", 1),
        ("base", 2),
        ("two", 1),
        ("two", 2),
    ]
    for row in whole["points"]:
        assert row["failed"] == 0, row["faults"]
        assert row["tokens_per_second"] > 0
        assert row["memory_mib"] > 0
        assert row["requests"] == row["rounds"] * row["streams"]
    assert len(whole["commands"]) == 2
    assert whole["limits"] == "unknown"
    assert whole["goals"]["requests answered in full"]["worst"] == 1.0


def test_a_plan_starts_nothing(tmp_path: Path) -> None:
    planned = run(sys.executable, "-m", "bench.gpu", "--plan", "NVIDIA H200", "--work", str(tmp_path / "w"))
    assert planned.returncode == 0
    assert re.search(r"\b48 points, 6 starts\b", planned.stderr)
    assert "oneseek (base): base 1x10, base 16x6, base 64x5, base 256x4" in planned.stderr
    assert not (tmp_path / "w").exists()
    short = run(sys.executable, "-m", "bench.gpu", "--plan", "NVIDIA H200", "--budget-seconds", "900")
    assert re.search(r"\bbudget\b.*\brounds\b.* \d+ points", short.stderr)
    elsewhere = run(sys.executable, "-m", "bench.gpu", "--plan", "NVIDIA Something New")
    assert "limit unknown" in elsewhere.stderr


def test_an_adapter_is_swapped_under_load(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    done = run(*command(tmp_path, "--scenarios", "swap", "--out", str(out)))
    assert done.returncode == 0, done.stderr
    rows = points(out)
    assert [row["failed"] for row in rows] == [0, 0]
    for row in rows:
        assert row["swap"]["fault"] is None
        assert row["swap"]["seconds"] > 0


def test_a_server_that_does_not_start_is_told_and_the_rest_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    engine = ["--engine", "vllm", "--python", sys.executable, "--engine-option", "no_such_option=1"]
    ended = run(*command(tmp_path, "--out", str(out), *engine))
    assert ended.returncode == 0, ended.stderr
    whole = json.loads(ended.stdout.splitlines()[-1])
    assert whole["points"] == []
    assert [start["start"] for start in whole["starts"]] == ["base", "lora"]
    assert all(start["fault"] for start in whole["starts"])
    assert "oneseek (lora) " in ended.stderr
