"""Compare OneSeek with vLLM's own server on a GPU, with a random Mistral-7B and eight random LoRA adapters.

    python -m bench.gpu [--plan [GPU]] [--budget-seconds 1200] [--out FILE | --resume FILE]

Both servers get the same engine options and the same prompts, which are random token ids. No prompt is sent
twice to a server, so the prefix cache stays on but never has a hit; `prefix_hits` in the result shows this.
Every answer has its full length. Rates and latencies are those of the steady state (bench/load/steady.py).
Results are written after every measuring point, and the last line of output is one JSON object. docs/gpu.md
explains how to run the benchmark on a host without a network. Without a GPU, the servers run vLLM's CPU
build: this tests the benchmark, not the servers.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import yaml

from bench.gpu.budget import TimeBudget
from bench.gpu.contenders import SERVERS, Contenders
from bench.gpu.models import RANKS, TARGETS, make_model
from bench.gpu.progress import print_progress
from bench.gpu.record import ResultFile
from bench.gpu.report import report_lines, summary
from bench.gpu.run import GpuRun
from bench.gpu.scenarios import (
    BY_NAME,
    SLOTS,
    STEADY,
    Length,
    Point,
    expected_seconds,
    points,
)
from bench.host import describe, find_gpu
from bench.limits.devices import GpuSpec, find_device
from bench.limits.roofline import Model
from bench.random_model import PRESETS

NO_GPU = GpuSpec(
    "a CPU, roughly", "", bandwidth=10, tflops=0.1, memory=0, source="a guess, for the plan alone"
)
"""Stand-in for an unknown GPU: a device with guessed limits, from which only the plan is computed. Results
are never compared with these limits.
"""
SHARE = 0.6
"""Fraction of a device's theoretical limit that the plan expects the servers to reach."""


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m bench.gpu", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--servers", default="oneseek,vllm", help=f"servers, comma-separated: {', '.join(SERVERS)}")
    add("--scenarios", default=",".join(STEADY), help=f"scenarios, comma-separated: {', '.join(BY_NAME)}")
    add("--streams", default="1,16,64,256", help="numbers of concurrent streams, comma-separated")
    add(
        "--budget-seconds",
        type=float,
        default=1200,
        help="time budget; if it is short, fewer rounds are run, and the result has a note",
    )
    add(
        "--plan",
        nargs="?",
        const="",
        metavar="GPU",
        help="print the plan of the runs for this machine's GPU, or for a named one, and exit",
    )
    add("--out", type=Path, help="result file (default: gpu-DATE.json in the working directory)")
    add("--resume", type=Path, metavar="FILE", help="add the missing measurements to this result file")
    add(
        "--work",
        type=Path,
        default=Path("/tmp/oneseek-gpu"),
        help="folder for models, caches and logs; the preset 7b needs 15 GB",
    )
    add(
        "--python",
        type=Path,
        default=Path(sys.executable),
        help="Python interpreter of an environment with both servers",
    )
    add("--engine", choices=("vllm", "embedded"), default="vllm", help="engine that OneSeek uses")
    add("--preset", choices=PRESETS, default="7b")
    add("--dtype", choices=("bfloat16", "float16"), default="bfloat16")
    add("--prompt", type=int, default=512)
    add("--tokens", type=int, default=128)
    add("--gpu-memory-utilization", type=float, default=0.9)
    add(
        "--engine-option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="option of vLLM's engine, by vLLM's name, for both servers",
    )
    add("--commit", help="OneSeek's commit, to record if the folder has no .git")
    arguments = parser.parse_args(given)
    if arguments.out and arguments.resume:
        parser.error(
            "--out starts a new result file and --resume continues an existing one; "
            "give only one of these two options"
        )
    for name in arguments.servers.split(","):
        if name not in SERVERS:
            parser.error(
                f"--servers names the unknown server {name!r}; the known servers are {', '.join(SERVERS)}"
            )
    return arguments


def _settings(arguments: argparse.Namespace, streams: Sequence[int]) -> dict[str, Any]:
    names = ("preset", "dtype", "prompt", "tokens", "engine", "gpu_memory_utilization")
    return {name: getattr(arguments, name) for name in names} | {
        "engine_options": dict(_pair(text) for text in arguments.engine_option),
        "config": asdict(PRESETS[arguments.preset]),
        "slots": SLOTS,
        "ranks": list(RANKS),
        "targets": list(TARGETS),
        "max_num_seqs": max(256, *streams),
        "prefix_caching": "on; no prompt is sent twice",
    }


def _pair(text: str) -> tuple[str, Any]:
    """Parse a flag of the form `NAME=VALUE` whose value is YAML or JSON, such as `enforce_eager=true`. Exit
    with an error if the value is missing.
    """
    name, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"bench.gpu: --engine-option {text!r} has no value; write NAME=VALUE")
    return name.replace("-", "_"), yaml.safe_load(value)


def _record(arguments: argparse.Namespace, settings: dict[str, Any], host: dict[str, Any]) -> ResultFile:
    if arguments.resume:
        record = ResultFile.load(arguments.resume)
        record.check(settings, host)
    else:
        out = arguments.out or Path(f"gpu-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
        if out.exists():
            raise ValueError(
                f"the result file {out} already exists; continue it with --resume {out}, or use another --out"
            )
        record = ResultFile(out, settings, host)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    record.commands.append({"date": date, "command": " ".join(["python -m bench.gpu", *sys.argv[1:]])})
    return record


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(given: Sequence[str] | None = None) -> None:
    """Run the GPU benchmark: parse the command line, print the plan, measure, and print the report."""
    arguments = _arguments(given)
    streams = [int(number) for number in arguments.streams.split(",")]
    every = points(arguments.servers.split(","), arguments.scenarios.split(","), streams)
    gpu = find_gpu()
    planned = arguments.plan or (gpu.name if gpu else "")
    settings = _settings(arguments, streams)
    model, length = Model.read(settings["config"]), Length(arguments.prompt, arguments.tokens)
    device = find_device(planned)
    guess = {point: expected_seconds(point, 1, length, model, device or NO_GPU, SHARE) for point in every}
    budget = TimeBudget(arguments.budget_seconds, guess, start_guess=85 if planned else 45)
    if arguments.plan is not None:
        _plan(every, budget, device)
        return
    signal.signal(signal.SIGTERM, _stop)
    try:
        record = _record(arguments, settings, describe(gpu, arguments.python, arguments.commit))
    except ValueError as error:
        raise SystemExit(f"bench.gpu: {error}") from None
    record.save()
    todo = [point for point in every if record.find(point) is None]
    print_progress(f"{len(every) - len(todo)} of {len(every)} points are in {record.path}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    base, adapters = make_model(arguments.work, arguments.preset, arguments.dtype)
    _plan(todo, budget, device)
    contenders = Contenders(arguments.work, arguments.python, base, adapters, settings, gpu is not None)
    GpuRun(record, contenders, budget, gpu, length, model.vocabulary, todo).all()
    print("\n".join(report_lines(record)))
    print(json.dumps(summary(record)))


def _plan(todo: Sequence[Point], budget: TimeBudget, device: GpuSpec | None) -> None:
    if not todo:
        return
    rounds = budget.rounds(todo, fresh=True)
    counted = "" if device else " (limit unknown: a rough guess until the first points are in)"
    starts = list(dict.fromkeys(point.start for point in todo))
    for start in starts:
        here = [point for point in todo if point.start == start]
        told = ", ".join(f"{point.scenario} {point.streams}x{rounds[point]}" for point in here)
        print_progress(f"  {start[0]} ({start[1]}): {told}")
    total = budget.expected(todo, rounds, fresh=True)
    print_progress(
        f"{len(todo)} points, {len(starts)} starts: about {total:.0f} s of a budget of "
        f"{budget.seconds:.0f}{counted}"
    )
    trimmed = sum(1 for point, kept in budget.untrimmed(todo).items() if rounds[point] < kept)
    if trimmed:
        print_progress(f"the budget takes rounds from {trimmed} points")
