"""Measure two bases in one server: their joint throughput, and how much long prompts for one base delay the
other.

    python -m bench.pressure.bases [--preset 28m] [--streams 4] [--answers 24] [--rounds 3]

The bases have random weights and the same size, and each runs on one thread. No process is pinned to a core,
so the client competes with the server; the CPU time of the client is reported. Each round measures four loads
on the same server: the first base alone, the second base alone, both at once, and the first base while the
second gets long prompts.

In the result, `together` is the tokens per second of both bases at once, divided by the sum of the two alone.
`gap` is the 99th percentile of the first base's inter-token latency beside the long prompts, divided by its
value alone. The last line of output is one JSON object with the medians over the rounds.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from bench.load.closed_loop import LoadRequest, LoadResult, closed_loop
from bench.servers import free_port, serving

NAMES = ("first", "second")
PATH = "/v1/completions"


def make_bases(work: Path, preset: str) -> list[Path]:
    """Return the folder of a base for each of `NAMES`. Write the bases that do not exist."""
    folders = [work / f"{preset}-{name}" for name in NAMES]
    for seed, folder in enumerate(folders):
        if not folder.exists():
            made = [sys.executable, "-m", "bench.random_model", str(folder), "--preset", preset]
            subprocess.run([*made, "--seed", str(seed)], check=True)
    return folders


def answers(base: str, count: int, tokens: int, prompt: int, seed: int) -> list[LoadRequest]:
    """Return `count` requests for one base, each with `prompt` random token ids and exactly `tokens` answer
    tokens.
    """
    rng = np.random.default_rng(seed)
    return [
        LoadRequest(
            PATH,
            {
                "model": base,
                "prompt": rng.integers(300, 4000, prompt).tolist(),
                "max_tokens": tokens,
                "ignore_eos": True,
                "temperature": 0,
            },
            tokens,
        )
        for _ in range(count)
    ]


async def load(url: str, base: str, arguments: argparse.Namespace, seed: int) -> LoadResult:
    """Send requests with short prompts and answers of `--tokens` tokens to one base, and return the
    result.
    """
    jobs = answers(base, arguments.answers, arguments.tokens, 32, seed)
    return await closed_loop(url, jobs, arguments.streams)


async def beside_prompts(url: str, arguments: argparse.Namespace, seed: int) -> LoadResult:
    """Send requests to the first base while the second base gets long prompts, one after another. Return the
    first base's result.
    """

    async def read_on() -> None:
        for number in range(10_000):
            await closed_loop(url, answers(NAMES[1], 1, 1, arguments.prompt, seed + number), 1)

    reading = asyncio.create_task(read_on())
    try:
        return await load(url, NAMES[0], arguments, seed + 20_000)
    finally:
        reading.cancel()
        await asyncio.gather(reading, return_exceptions=True)


async def both(url: str, arguments: argparse.Namespace, seed: int) -> tuple[float, Sequence[LoadResult]]:
    """Send requests to both bases at once. Return the tokens per second of both together, and each base's
    result.
    """
    began = time.perf_counter()
    results = await asyncio.gather(
        *(load(url, name, arguments, seed + place) for place, name in enumerate(NAMES))
    )
    return sum(one.tokens for one in results) / (time.perf_counter() - began), results


def measure(url: str, arguments: argparse.Namespace, turn: int) -> dict[str, float]:
    """Run one round, which measures each base alone, both at once, and the first beside long prompts for the
    second. Return its figures. Raises `RuntimeError` if an answer does not match its request.
    """
    seed = 100_000 * turn
    before, began = _cpu(), time.perf_counter()
    alone = [asyncio.run(load(url, name, arguments, seed + 10 * place)) for place, name in enumerate(NAMES)]
    together, mixed = asyncio.run(both(url, arguments, seed + 50))
    beside = asyncio.run(beside_prompts(url, arguments, seed + 100))
    faults = [fault for one in (*alone, *mixed, beside) for fault in one.faults]
    if faults:
        raise RuntimeError(
            f"{len(faults)} requests failed or got a wrong answer; the first error is: {faults[0]}"
        )
    p99 = [float(np.percentile(one.gaps, 99)) * 1e3 for one in (alone[0], beside)]
    return {
        "first alone": alone[0].tokens_per_second,
        "second alone": alone[1].tokens_per_second,
        "both": together,
        "together": together / sum(one.tokens_per_second for one in alone),
        "gap alone ms": p99[0],
        "gap beside prompts ms": p99[1],
        "gap": p99[1] / p99[0],
        "client cores": (_cpu() - before) / (time.perf_counter() - began),
    }


def _cpu() -> float:
    """Return the CPU seconds that this process has used."""
    times = os.times()
    return times.user + times.system


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark of two bases in one server: parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="28m")
    parser.add_argument("--quantize", default="none")
    parser.add_argument("--streams", type=int, default=4, help="concurrent streams of each base")
    parser.add_argument("--answers", type=int, default=24, help="answers of each base under each load")
    parser.add_argument("--tokens", type=int, default=64, help="tokens of each answer")
    parser.add_argument("--prompt", type=int, default=1500, help="length of the long prompts in tokens")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    arguments = parser.parse_args(given)
    arguments.work.mkdir(parents=True, exist_ok=True)
    folders = make_bases(arguments.work, arguments.preset)
    port = free_port()
    command = [sys.executable, "-m", "server", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", "1", "--log-level", "warning", "--quantize", arguments.quantize]
    command += ["--max-model-len", "2048", "--max-num-seqs", str(max(4, arguments.streams))]
    for name, folder in zip(NAMES, folders, strict=True):
        command += ["--base", f"{name}={folder}"]
    rounds: list[dict[str, float]] = []
    env = {"ONESEEK_HOME": str(arguments.work / "home-bases")}
    with serving(command, port, arguments.work / "bases.log", env) as server:
        for turn in range(arguments.rounds):
            rounds.append(measure(server.url, arguments, turn))
            print(turn + 1, json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    report: dict[str, Any] = {
        name: round(statistics.median(one[name] for one in rounds), 3) for name in rounds[0]
    }
    print(json.dumps({"bench": "bases", "python": platform.python_version(), **report}))


if __name__ == "__main__":
    main()
