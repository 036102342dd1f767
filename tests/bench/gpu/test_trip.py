"""The trips to a host that is there for a few minutes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

import bench
from bench.gpu.models import ADAPTERS, VERSIONS
from bench.gpu.scenarios import BY_NAME, points
from bench.gpu.trip import LEAST_SECONDS, STOP_SECONDS, TripStage, main, stages

ROOT = Path(bench.__file__).parent.parent
Out = pytest.CaptureFixture[str]
LIGHT = (
    "import sys, bench.gpu.trip, bench.gpu; print(*{'aiohttp', 'psutil', 'uvloop', 'yaml'} & {*sys.modules})"
)


def trip(*words: str) -> dict[str, Any]:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("ONESEEK_")}
    command = [sys.executable, "-m", "bench.gpu.trip", *words]
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=250)
    assert done.returncode == 0, done.stderr[-3000:]
    return json.loads(done.stdout.splitlines()[-1])


def test_every_stage_is_a_run_of_known_points() -> None:
    first, *rest = stages([64, 256])
    assert len(points(first.servers.split(","), first.scenarios.split(","), [64, 256])) == 12
    assert first.most < 560, "something is left for the others"
    assert {stage.streams for stage in rest} == {"64", "1,64"}
    assert all(name in BY_NAME for stage in rest for name in stage.scenarios.split(","))


def test_the_first_trip_needs_nothing_of_the_bundle() -> None:
    done = subprocess.run([sys.executable, "-c", LIGHT], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == []


def test_the_model_is_written_while_the_trip_has_ended(tmp_path: Path) -> None:
    told = trip("look", "--work", str(tmp_path), "--preset", "5m")
    assert told["disk_free_mib"] > 0
    deadline = time.monotonic() + 60
    while not (tmp_path / VERSIONS[-1]).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    folders = {path.name for path in tmp_path.iterdir() if path.is_dir()}
    assert {"5m-bfloat16", *VERSIONS} <= folders
    assert len(folders) == 1 + len(ADAPTERS) + len(VERSIONS)


def test_stages_share_a_file_and_a_second_call_goes_on(tmp_path: Path) -> None:
    out = tmp_path / "r.json"
    shape = ["--preset", "5m", "--prompt", "8", "--tokens", "4", "--streams", "1,2", "--engine", "embedded"]
    where = ["--out", str(out), "--work", str(tmp_path / "work")]
    enough = str(LEAST_SECONDS + STOP_SECONDS + 180)
    told = trip("measure", *where, *shape, "--seconds", enough)
    assert [stage["stage"] for stage in told["stages"]] == [stage.name for stage in stages([1, 2])]
    assert [stage["code"] for stage in told["stages"]] == [0] * 4
    kept = json.loads(out.read_text())["points"]
    assert len(kept) == told["points"]
    assert {(row["server"], row["scenario"]) for row in kept} >= {
        ("oneseek", name) for name in ("idle", "two", "eight", "base", "swap")
    }
    assert all(row["failed"] == 0 for row in kept)
    assert (tmp_path / "r-swap.log").read_text().splitlines()[-1].startswith('{"bench": "gpu"')
    short = trip("measure", *where, *shape, "--seconds", str(LEAST_SECONDS))
    assert (short["stages"], short["points"]) == ([], len(kept))


def test_a_first_stage_that_was_cut_short_goes_on_before_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Out
) -> None:
    """As after a slow start, which leaves the second server out and the comparison with it."""
    out, ran = tmp_path / "r.json", list[tuple[str, float]]()

    def run(stage: TripStage, seconds: float, *_: object) -> dict[str, Any]:
        ran.append((stage.name, seconds))
        notes = ["out of time: left out 6 points"] if len(ran) == 1 else []
        out.write_text(json.dumps({"points": [], "notes": notes}))
        return {"stage": stage.name, "code": 0}

    monkeypatch.setattr("bench.gpu.trip._run", run)
    main(["measure", "--out", str(out), "--seconds", "560"])
    first = stages([64, 256])[0]
    assert [name for name, _ in ran] == ["lora", "lora", "rust", "base", "swap"]
    assert ran[0][1] == first.most
    assert ran[1][1] > first.most, "all that is left"
    assert json.loads(capsys.readouterr().out)["points"] == 0


def test_an_option_that_no_trip_knows_is_a_mistake(tmp_path: Path, capsys: Out) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["unpack", "a", "b", "--preset", "5m"])
    assert ended.value.code == 2
    assert "--preset" in capsys.readouterr().err
