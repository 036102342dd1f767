"""OneSeek, then vLLM's own server, on a GPU with a random Mistral-7B and eight random adapters.

    python -m bench.gpu [--plan [GPU]] [--budget-seconds 1200] [--out FILE | --resume FILE]

Both servers get the same engine options and the same prompts: token ids at random, none sent twice to a
server, so that its prefix cache, which stays on as in production, never holds one (`prefix_hits` says so).
Every answer has its full length. The rates and latencies are those of the steady state (bench/steady.py).
Results are written after every point; the last line is one JSON object. docs/gpu.md says how to bring all
this to a host without a network. Without a GPU it runs vLLM's CPU build, which rehearses it and no more.
"""

from __future__ import annotations

import argparse
import json
import signal
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import uvloop
import yaml

from bench.budget import Budget
from bench.contenders import SERVERS, Contenders
from bench.gpu_report import summary, table
from bench.host import Gpu, describe, find_gpu, used_mib, wait_until_free
from bench.limits import Device, Model, find_device
from bench.load import Outcome, closed_loop
from bench.random_model import PRESETS, write_adapter, write_model
from bench.record import Record
from bench.scenarios import (
    ADAPTERS,
    BY_NAME,
    RANKS,
    SLOTS,
    TARGETS,
    Length,
    Point,
    expected_seconds,
    jobs,
    points,
    wanted_rounds,
    warm_up,
)
from bench.servers import Server
from bench.steady import Steady, steady

NO_GPU = Device(
    "a CPU, roughly", "", bandwidth=10, tflops=0.1, memory=0, source="a guess, for the plan alone"
)
"""What the plan counts with where nothing is known of the device; no figure is held against it."""
SHARE = 0.6
"""Of its limit, what the plan expects of a device."""


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def make_model(work: Path, preset: str, dtype: str) -> tuple[Path, dict[str, Path]]:
    """The base and its adapters under `work`, made where they are not there yet."""
    shape = PRESETS[preset]
    base = work / f"{preset}-{dtype}"
    adapters = {name: work / f"{preset}-{name}-r{rank}" for name, rank in zip(ADAPTERS, RANKS, strict=True)}
    began = time.monotonic()
    for number, (path, rank) in enumerate(zip((base, *adapters.values()), (0, *RANKS), strict=True)):
        if path.exists():
            continue
        partial = path.with_name(path.name + ".partial")
        if rank:
            write_adapter(partial, shape, rank, TARGETS, seed=number)
        else:
            write_model(partial, shape, dtype=dtype)
        partial.rename(path)
        _say(f"wrote {path} ({time.monotonic() - began:.0f} s)")
    return base, adapters


@dataclass(slots=True)
class Run:
    """One run over the points that are not in the record yet."""

    record: Record
    contenders: Contenders
    budget: Budget
    gpu: Gpu | None
    length: Length
    vocabulary: int
    todo: list[Point]

    def all(self) -> None:
        """Start each server that a point needs, run its points, stop it."""
        before = self.gpu.used_mib() if self.gpu else 0
        if before > 1024:
            self._note(f"{before} MiB of the GPU were in use before the first start: figures may be off")
        while self.todo:
            if not self.budget.fits(self.todo[0], fresh=True):
                self._note(f"out of time: left out {len(self.todo)} points, from {self.todo[0]} on")
                return
            here = [point for point in self.todo if point.start == self.todo[0].start]
            try:
                self._start(here)
            except RuntimeError as error:
                self._fault(here, error)
            self.todo = [point for point in self.todo if point not in here]
            if self.gpu:
                wait_until_free(self.gpu, before)

    def _start(self, here: Sequence[Point]) -> None:
        server, start = here[0].start
        _say(f"starting {server} ({start})")
        with ExitStack() as stack:
            began = time.monotonic()
            running = stack.enter_context(self.contenders.start(server, start))
            took = time.monotonic() - began
            self.budget.starts.append(took)
            self.record.starts.append(
                {"server": server, "start": start, "seconds": round(took, 1)}
                | self.contenders.told(server, start)
            )
            self.record.save()
            warm = ""
            for point in here:
                if not self.budget.fits(point, fresh=False):
                    self._note(f"out of time: left out {point}")
                    continue
                rounds = self.budget.rounds(self.todo[self.todo.index(point) :], fresh=False)
                if point.scenario != warm:
                    most = max((other for other in here if other.scenario == point.scenario), key=_streams)
                    warming = warm_up(most, self.length, self.vocabulary)
                    uvloop.run(closed_loop(running.url, warming, min(len(warming), most.streams)))
                    warm = point.scenario
                if rounds[point] < wanted_rounds(point.streams):
                    self._note(f"{point}: {rounds[point]} rounds for want of time")
                self._point(running, point, rounds[point])

    def _point(self, server: Server, point: Point, rounds: int) -> None:
        work = jobs(point, rounds, self.length, self.vocabulary)
        hits, busy, began = server.prefix_hits(), time.process_time(), time.monotonic()
        outcome = uvloop.run(closed_loop(server.url, work, point.streams))
        took = time.monotonic() - began
        self.budget.saw(point, rounds, took)
        after = server.prefix_hits()
        row = asdict(point) | {"rounds": rounds, "seconds": round(took, 2)}
        row |= figures(outcome, point.streams)
        row["memory_mib"] = used_mib(self.gpu, server.process)
        row["client_cpu"] = round((time.process_time() - busy) / took, 2)
        row["prefix_hits"] = None if hits is None or after is None else after - hits
        self.record.points.append(row)
        self.record.save()
        rate = row["tokens_per_second"]
        _say(
            f"{point}: {rate} tokens/s, {row['failed']} failed, "
            f"{rounds} rounds in {took:.1f} s; {self.budget.left:.0f} s of the budget left"
        )

    def _fault(self, here: Sequence[Point], error: RuntimeError) -> None:
        server, start = here[0].start
        self.record.starts.append({"server": server, "start": start, "fault": str(error)[-3000:]})
        self._note(f"{server} ({start}) did not start or did not stay up; see starts in {self.record.path}")

    def _note(self, text: str) -> None:
        self.record.notes.append(text)
        self.record.save()
        _say(text)


def _streams(point: Point) -> int:
    return point.streams


def figures(outcome: Outcome, streams: int) -> dict[str, Any]:
    """What a run gave; milliseconds. A run without a steady state has its requests and faults alone."""
    found = steady(outcome.traces, streams)
    percentiles = ("p50", "p95", "p99")
    row: dict[str, Any] = {
        "requests": max(sum(outcome.statuses.values()), len(outcome.traces) + len(outcome.faults)),
        "failed": len(outcome.faults),
        "faults": outcome.faults[:3],
        "tokens_per_second": round(found.tokens_per_second, 1) if found else None,
        "window_seconds": round(found.seconds, 2) if found else None,
        "decode_step_ms": _step(found),
    }
    for name, values in (("ttft_ms", found.first if found else []), ("itl_ms", found.gaps if found else [])):
        told = np.percentile(values, (50, 95, 99)) * 1e3 if len(values) else [None] * 3
        row[name] = {
            key: None if value is None else round(float(value), 2)
            for key, value in zip(percentiles, told, strict=True)
        }
    return row


def _step(found: Steady | None) -> float | None:
    return round(found.decode_step * 1e3, 3) if found and found.decode_step else None


def _arguments(given: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--servers", default=",".join(SERVERS), help="comma-separated")
    add("--scenarios", default=",".join(BY_NAME), help="comma-separated")
    add("--streams", default="1,16,64,256", help="comma-separated")
    add("--budget-seconds", type=float, default=1200, help="rounds are trimmed to fit, and it says so")
    add("--plan", nargs="?", const="", metavar="GPU", help="print what would be run, on this GPU or another")
    add("--out", type=Path, help="result file (default: gpu-DATE.json in the working directory)")
    add("--resume", type=Path, metavar="FILE", help="continue a result file")
    add("--work", type=Path, default=Path("/tmp/oneseek-gpu"), help="models, caches and logs; 15 GB for 7b")
    add("--python", type=Path, default=Path(sys.executable), help="interpreter that has both servers")
    add("--engine", choices=("vllm", "embedded"), default="vllm", help="OneSeek's engine")
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
        help="of vLLM's, for both servers",
    )
    add("--commit", help="OneSeek's commit, where the tree has no .git")
    arguments = parser.parse_args(given)
    if arguments.out and arguments.resume:
        parser.error("--out and --resume name the same thing; give one")
    for name in arguments.servers.split(","):
        if name not in SERVERS:
            parser.error(f"--servers {name!r} is unknown; any of: {', '.join(SERVERS)}")
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
    """A name and a value of YAML or JSON, such as `enforce_eager=true`."""
    name, equals, value = text.partition("=")
    if not equals:
        raise SystemExit(f"bench.gpu: --engine-option {text!r} lacks a value; write NAME=VALUE")
    return name.replace("-", "_"), yaml.safe_load(value)


def _record(arguments: argparse.Namespace, settings: dict[str, Any], host: dict[str, Any]) -> Record:
    if arguments.resume:
        record = Record.load(arguments.resume)
        record.check(settings, host)
    else:
        out = arguments.out or Path(f"gpu-{datetime.now(UTC):%Y%m%d-%H%M%S}.json")
        if out.exists():
            raise ValueError(f"{out} exists; continue it with --resume {out}, or name another --out")
        record = Record(out, settings, host)
    date = datetime.now(UTC).isoformat(timespec="seconds")
    record.commands.append({"date": date, "command": " ".join(["python -m bench.gpu", *sys.argv[1:]])})
    return record


def _stop(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)


def main(given: Sequence[str] | None = None) -> None:
    """Parse the command line, plan, measure, report."""
    arguments = _arguments(given)
    streams = [int(number) for number in arguments.streams.split(",")]
    every = points(arguments.servers.split(","), arguments.scenarios.split(","), streams)
    gpu = find_gpu()
    planned = arguments.plan or (gpu.name if gpu else "")
    settings = _settings(arguments, streams)
    model, length = Model.read(settings["config"]), Length(arguments.prompt, arguments.tokens)
    device = find_device(planned)
    guess = {point: expected_seconds(point, 1, length, model, device or NO_GPU, SHARE) for point in every}
    budget = Budget(arguments.budget_seconds, guess, start_guess=85 if planned else 45)
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
    _say(f"{len(every) - len(todo)} of {len(every)} points are in {record.path}")
    arguments.work.mkdir(parents=True, exist_ok=True)
    base, adapters = make_model(arguments.work, arguments.preset, arguments.dtype)
    _plan(todo, budget, device)
    contenders = Contenders(arguments.work, arguments.python, base, adapters, settings, gpu is not None)
    Run(record, contenders, budget, gpu, length, model.vocabulary, todo).all()
    print("\n".join(table(record)))
    print(json.dumps(summary(record)))


def _plan(todo: Sequence[Point], budget: Budget, device: Device | None) -> None:
    if not todo:
        return
    rounds = budget.rounds(todo, fresh=True)
    counted = "" if device else " (limit unknown: a rough guess until the first points are in)"
    starts = list(dict.fromkeys(point.start for point in todo))
    for start in starts:
        here = [point for point in todo if point.start == start]
        told = ", ".join(f"{point.scenario} {point.streams}x{rounds[point]}" for point in here)
        _say(f"  {start[0]} ({start[1]}): {told}")
    total = budget.expected(todo, rounds, fresh=True)
    _say(
        f"{len(todo)} points, {len(starts)} starts: about {total:.0f} s of a budget of "
        f"{budget.seconds:.0f}{counted}"
    )
    trimmed = sum(1 for point, kept in budget.untrimmed(todo).items() if rounds[point] < kept)
    if trimmed:
        _say(f"the budget takes rounds from {trimmed} points")


if __name__ == "__main__":
    main()
