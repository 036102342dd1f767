"""Measure OneSeek with a large random base in 4 bits on a few CPU cores, and llama.cpp on the same weights.

    python -m bench.bigbase --preset 7b --threads 2 --llama-python ENV/bin/python

ENV is a Python environment with `llama-cpp-python` (built from source for this machine), `gguf`,
`safetensors` and `ml_dtypes`. The benchmark writes a bfloat16 checkpoint, two LoRA adapters of rank 8 on
q_proj and v_proj, and a GGUF file in Q4_0 into the folder `--work`, and keeps them.

OneSeek is started twice, once to build its ONNX graph and once with the graph in its cache. Then OneSeek and
llama.cpp take turns to compute a prompt and decode tokens one by one. OneSeek is timed over HTTP, llama.cpp
inside its process. Figures are medians over the rounds; ratios are medians of the ratio in each round. The
last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.host import describe
from bench.load.closed_loop import LoadRequest, closed_loop
from bench.random_model import PRESETS
from bench.servers import Server, free_port, oneseek, serving

NAMES = ("base", "en", "sv")
MIB = 1 << 20


class Rival:
    """A process that runs llama.cpp and measures a prompt on request."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        self.about = self._read()

    def measure(self, prompt: int, tokens: int) -> dict[str, Any]:
        """Let llama.cpp compute one random prompt and `tokens` tokens after it. Return the seconds for the
        prompt, and the seconds of each decode step.
        """
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps({"prompt": prompt, "tokens": tokens}) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(
                f"the process of llama.cpp ended with exit status {self._process.wait()}; its error output "
                "says why"
            )
        return json.loads(line)


@contextmanager
def rival(python: Path, model: Path, threads: int, context: int, batch: int) -> Generator[Rival]:
    """Run llama.cpp with `model` loaded, and stop it when the `with` block ends."""
    command = [str(python), "-m", "bench.rivals.llama", str(model), "--threads", str(threads)]
    command += ["--context", str(context), "--batch", str(batch)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        yield Rival(process)
    finally:
        process.kill()
        process.wait()


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark of a large base beside llama.cpp: parse the command line, measure, and print the
    result.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--llama-python", type=Path, help="Python with llama.cpp's packages; without it, only OneSeek runs"
    )
    parser.add_argument("--preset", choices=PRESETS, default="7b")
    parser.add_argument("--quantize", default="int4")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--prompt", type=int, default=512)
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--context", type=int, default=4096)
    parser.add_argument("--work", type=Path, default=Path("/var/tmp/oneseek-big"))
    print(json.dumps(run(parser.parse_args(given))))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the missing models, start OneSeek and llama.cpp, measure them in turn, and return the report."""
    work: Path = arguments.work
    work.mkdir(parents=True, exist_ok=True)
    model, python = work / arguments.preset, arguments.llama_python
    adapters = {name: work / f"{arguments.preset}-{name}" for name in NAMES[1:]}
    if not model.exists():
        _run([sys.executable, "-m", "bench.random_model", str(model), "--preset", arguments.preset])
    gguf = work / f"{arguments.preset}.gguf"
    if python and not gguf.exists():
        _run([str(python), "-m", "bench.rivals.gguf", str(model), str(gguf)])
    starts: dict[str, Any] = {}
    if not list(_home(arguments).glob(f"graphs/*/*-{arguments.quantize}-*")):
        with _server(arguments, model, adapters, starts, "first"):
            pass
    with _server(arguments, model, adapters, starts, "cached") as server:
        if python is None:
            rounds = _take_turns(arguments, server, None)
            about = None
        else:
            with rival(python, gguf, arguments.threads, arguments.context, arguments.prompt) as other:
                about = other.about
                rounds = _take_turns(arguments, server, other)
        memory = _memory(server.process)
    return _report(arguments, rounds, starts, memory, about)


def _home(arguments: argparse.Namespace) -> Path:
    return arguments.work / f"home-{arguments.preset}"


def _run(command: Sequence[str]) -> None:
    extra = ["--dtype", "bfloat16", "--adapters", "en:8,sv:8", "--targets", "q_proj,v_proj"]
    subprocess.run([*command, *(extra if "bench.random_model" in command else [])], check=True)


@contextmanager
def _server(
    arguments: argparse.Namespace, model: Path, adapters: dict[str, Path], starts: dict[str, Any], name: str
) -> Generator[Server]:
    """Run OneSeek, and stop it when the `with` block ends. Store the seconds and the memory of its start in
    `starts[name]`.
    """
    work: Path = arguments.work
    options = ["--quantize", arguments.quantize, "--threads", str(arguments.threads), "--max-num-seqs", "4"]
    options += ["--max-model-len", str(arguments.context), "--home", str(_home(arguments))]
    options += ["--max-num-batched-tokens", str(arguments.prompt)]
    port = free_port()
    command = oneseek(model, adapters, port, *options)
    began = time.perf_counter()
    with serving(command, port, work / f"oneseek-{arguments.preset}.log", wait=3600) as server:
        starts[name] = {"seconds": round(time.perf_counter() - began, 2), **_memory(server.process)}
        print(name, json.dumps(starts[name]), file=sys.stderr, flush=True)
        yield server


def _take_turns(
    arguments: argparse.Namespace, server: Server, other: Rival | None
) -> list[dict[str, dict[str, float]]]:
    vocabulary = PRESETS[arguments.preset].vocab_size
    rounds: list[dict[str, dict[str, float]]] = []
    for turn in range(arguments.rounds + 1):
        figures: dict[str, dict[str, float]] = {}
        for number, name in enumerate(NAMES):
            figures[name] = _ours(arguments, server, name, vocabulary, seed=turn * len(NAMES) + number)
        if other is not None:
            told = other.measure(arguments.prompt, arguments.tokens)
            figures["llama.cpp"] = {
                "prefill": arguments.prompt / told["prompt_seconds"],
                "decode": 1 / statistics.median(told["step_seconds"]),
            }
        print(turn, json.dumps(_rounded(figures)), file=sys.stderr, flush=True)
        if turn:  # the first turn warms up
            rounds.append(figures)
    return rounds


def _ours(
    arguments: argparse.Namespace, server: Server, name: str, vocabulary: int, seed: int
) -> dict[str, float]:
    """Send one request to OneSeek and measure its prefill rate and its decode rate in tokens per second, and
    its TTFT.
    """
    prompt = np.random.default_rng(seed).integers(10, vocabulary - 10, arguments.prompt).tolist()
    body = {"model": name, "prompt": prompt, "max_tokens": arguments.tokens, "temperature": 0}
    job = LoadRequest("/v1/completions", body | {"ignore_eos": True}, arguments.tokens)
    outcome = uvloop.run(closed_loop(server.url, [job], 1))
    if outcome.faults:
        raise RuntimeError(f"the measured request to the server at {server.url} failed: {outcome.faults[0]}")
    trace, first = outcome.traces[0], outcome.first[0]
    steps = [gap / events for gap, events in zip(trace.gaps, trace.events[1:], strict=True)]
    if not steps:
        raise RuntimeError(
            f"the server sent all {arguments.tokens} tokens in one chunk, so the decode speed cannot be "
            "measured; raise --tokens"
        )
    return {
        "prefill": arguments.prompt / first,
        "decode": 1 / statistics.median(steps),
        "ttft_ms": first * 1e3,
    }


def _memory(process: int) -> dict[str, int]:
    """Return the memory of a process in MiB: all resident memory, the anonymous part of it, and the peak."""
    text = Path(f"/proc/{process}/status").read_text()
    names = {"VmRSS": "resident_mib", "RssAnon": "own_mib", "VmHWM": "peak_mib"}
    found = {key: re.search(rf"^{key}:\s+(\d+) kB", text, re.MULTILINE) for key in names}
    return {names[key]: int(match[1]) * 1024 // MIB for key, match in found.items() if match}


def _report(
    arguments: argparse.Namespace,
    rounds: Sequence[dict[str, dict[str, float]]],
    starts: dict[str, Any],
    memory: dict[str, int],
    about: dict[str, Any] | None,
) -> dict[str, Any]:
    figures = {
        name: {kind: statistics.median(turn[name][kind] for turn in rounds) for kind in rounds[0][name]}
        for name in rounds[0]
    }
    ratios: dict[str, Any] = {}
    if about is not None:
        for kind in ("decode", "prefill"):
            for name in NAMES:
                each = [turn[name][kind] / turn["llama.cpp"][kind] for turn in rounds]
                ratios[f"{kind} {name}"] = [round(f(each), 3) for f in (statistics.median, min, max)]
    shape = ("preset", "quantize", "threads", "prompt", "tokens", "context", "rounds")
    return {
        "bench": "bigbase",
        "shape": {name: getattr(arguments, name) for name in shape},
        "host": describe(None, Path(sys.executable), None),
        "onnxruntime": version("onnxruntime"),
        "llama.cpp": about,
        "starts": starts,
        "memory": memory,
        "figures": _rounded(figures),
        "ratios to llama.cpp (median, least, most)": ratios,
    }


def _rounded(figures: dict[str, dict[str, float]]) -> dict[str, dict[str, float]]:
    return {name: {kind: round(value, 2) for kind, value in row.items()} for name, row in figures.items()}


if __name__ == "__main__":
    main()
