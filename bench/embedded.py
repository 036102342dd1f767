"""Compare OneSeek's embedded engine over HTTP with vLLM's CPU build and with transformers + PEFT, in one run.

    python -m bench.embedded --vllm-python ENV/bin/python [--rounds 5] [--quantize none] [--preset 28m]

The model has random weights, because the weights do not change the amount of work. It is written once, into
the folder `--work`. All servers run for the whole benchmark and are measured in turn, so that a slow phase of
the machine affects all of them alike. The figures are medians over the rounds. The last line of output is one
JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.load.closed_loop import LoadRequest, LoadResult, closed_loop
from bench.random_model import at_hand
from bench.servers import Server, free_port, oneseek, serving, vllm

NAMES = ("base", "en", "sv")


def jobs(
    vocabulary: int, count: int, prompt: int, tokens: int, names: tuple[str, ...], seed: int
) -> list[LoadRequest]:
    """Return `count` completion requests with `prompt` random token ids and `tokens` answer tokens each. The
    requests name the models in `names` in turn.
    """
    random = np.random.default_rng(seed)
    return [
        LoadRequest(
            "/v1/completions",
            {
                "model": names[i % len(names)],
                "prompt": random.integers(10, vocabulary - 10, prompt).tolist(),
                "max_tokens": tokens,
                "temperature": 0,
                "ignore_eos": True,
            },
            tokens,
        )
        for i in range(count)
    ]


def measure(server: Server, work: list[LoadRequest], streams: int) -> LoadResult:
    """Send the requests in `work` over `streams` concurrent streams and return the result. Raises
    `RuntimeError` if an answer does not match its request.
    """
    before = server.event_loop_seconds()
    outcome = uvloop.run(closed_loop(server.url, work, streams))
    outcome.event_loop_seconds = server.event_loop_seconds() - before
    if outcome.faults:
        raise RuntimeError(
            f"{len(outcome.faults)} requests to {server.url} failed; the first error is: {outcome.faults[0]}"
        )
    return outcome


def peft(model: Path, adapters: dict[str, Path]) -> dict[str, float]:
    """Measure transformers with PEFT's mixed-adapter batches in bfloat16, in a separate process. Return a map
    from the batch size to decode tokens per second.
    """
    command = [sys.executable, "-m", "bench.rivals.peft", str(model)]
    command += [f"{name}={path}" for name, path in adapters.items()]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    return json.loads(output.strip().splitlines()[-1])


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark of the embedded engine: parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vllm-python", type=Path, help="Python of an environment with vLLM's CPU build")
    parser.add_argument("--vllm-dtype", default="bfloat16")
    parser.add_argument("--peft", action="store_true", help="also measure transformers + PEFT (needs torch)")
    parser.add_argument("--preset", default="28m")
    parser.add_argument(
        "--quantize", default="none,int8", help="weight formats of OneSeek to measure, comma-separated"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--requests", type=int, default=96)
    parser.add_argument("--prompt", type=int, default=128)
    parser.add_argument("--tokens", type=int, default=64)
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    arguments = parser.parse_args(given)
    report = run(arguments)
    print(json.dumps(report))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the model, start the servers, measure them in turn, and return the report."""
    work: Path = arguments.work
    model, adapters, vocabulary = at_hand(work, arguments.preset)
    with ExitStack() as stack:
        targets = _start(arguments, stack, model, adapters)
        results = _take_turns(arguments, targets, vocabulary)
    rival = peft(model, adapters) if arguments.peft else {}
    return _report(arguments, results, rival)


def _start(
    arguments: argparse.Namespace, stack: ExitStack, model: Path, adapters: dict[str, Path]
) -> dict[str, Callable[[bool], Server]]:
    """Start the servers. Map each server's name to a function that returns the server to measure. The
    function's argument is true for a load of mixed adapters, and false for requests to the base only.
    """
    targets: dict[str, Callable[[bool], Server]] = {}
    context = str(arguments.prompt + arguments.tokens)
    for quantize in arguments.quantize.split(","):
        port = free_port()
        command = oneseek(
            model, adapters, port, "--quantize", quantize, "--max-num-seqs", str(arguments.streams)
        )
        log = arguments.work / f"oneseek-{quantize}.log"
        server = stack.enter_context(serving(command, port, log))
        targets[f"oneseek {quantize}"] = lambda mixed, server=server: server
    if arguments.vllm_python:
        options = ["--max-num-seqs", str(arguments.streams), "--max-model-len", context]
        options += ["--dtype", arguments.vllm_dtype, "--no-enable-prefix-caching"]
        env = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
        servers: dict[bool, Server] = {}
        for mixed in (False, True):
            port = free_port()
            command = vllm(arguments.vllm_python, model, adapters if mixed else {}, port, *options)
            log = arguments.work / f"vllm-{'lora' if mixed else 'base'}.log"
            servers[mixed] = stack.enter_context(serving(command, port, log, env))
        targets["vllm"] = lambda mixed: servers[mixed]
    return targets


def _take_turns(
    arguments: argparse.Namespace, targets: dict[str, Callable[[bool], Server]], vocabulary: int
) -> dict[tuple[str, str], list[LoadResult]]:
    results: dict[tuple[str, str], list[LoadResult]] = {}
    seeds = itertools.count()  # no prompt is ever sent twice, or prefix reuse would answer it
    for turn in range(arguments.rounds + 1):
        for name, address in targets.items():
            for kind, names in (("base", ("base",)), ("mixed", NAMES)):
                count = arguments.requests if turn else arguments.streams
                load = jobs(vocabulary, count, arguments.prompt, arguments.tokens, names, next(seeds))
                outcome = measure(address(kind == "mixed"), load, arguments.streams)
                if turn:  # the first turn warms up
                    results.setdefault((name, kind), []).append(outcome)
                    print(turn, name, kind, json.dumps(outcome.summary()), file=sys.stderr, flush=True)
        for name, address in targets.items():
            if not name.startswith("oneseek"):
                continue
            for streams in (1, 32):  # few prompts, long answers: decoding alone
                load = jobs(vocabulary, streams, arguments.prompt - 64, 128, NAMES, next(seeds))
                outcome = measure(address(True), load, streams)
                if turn:
                    results.setdefault((name, f"decode {streams}"), []).append(outcome)
    return results


def _report(
    arguments: argparse.Namespace, results: dict[tuple[str, str], list[LoadResult]], rival: dict[str, float]
) -> dict[str, Any]:
    figures: dict[str, Any] = {}
    for (name, kind), outcomes in results.items():
        if kind.startswith("decode"):
            gap = statistics.median(statistics.median(o.gaps) for o in outcomes)
            figures.setdefault(name, {})[kind] = {"tokens_per_second": round(int(kind.split()[1]) / gap, 1)}
        else:
            rates = sorted(outcomes, key=lambda o: o.tokens_per_second)
            figures.setdefault(name, {})[kind] = rates[len(rates) // 2].summary()
    ratios: dict[str, float] = {}

    def ratio(label: str, a: list[LoadResult], b: list[LoadResult]) -> None:
        pairs = [x.tokens_per_second / y.tokens_per_second for x, y in zip(a, b, strict=True)]
        ratios[label] = round(statistics.median(pairs), 3)

    for name in {n for n, _ in results if n.startswith("oneseek")}:
        ratio(f"{name}: mixed / base", results[name, "mixed"], results[name, "base"])
        if ("vllm", "mixed") in results:
            ratio(f"{name}: mixed / vllm mixed", results[name, "mixed"], results["vllm", "mixed"])
            ratio(f"{name}: mixed / vllm base", results[name, "mixed"], results["vllm", "base"])
        for batch in ("1", "32"):
            if batch in rival:
                ours = figures[name][f"decode {batch}"]["tokens_per_second"]
                ratios[f"{name}: decode {batch} / peft bf16"] = round(ours / rival[batch], 2)
    return {
        "bench": "embedded",
        "preset": arguments.preset,
        "shape": {k: getattr(arguments, k) for k in ("streams", "requests", "prompt", "tokens", "rounds")},
        "python": platform.python_version(),
        "figures": figures,
        "peft_bf16_decode_tokens_per_second": rival,
        "ratios": ratios,
    }


if __name__ == "__main__":
    main()
