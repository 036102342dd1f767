"""OneSeek on vLLM's engine beside `vllm serve` on the same engine: what the front end alone is worth.

    ENV/bin/python -m bench.frontend [--rounds 5] [--streams 64,8,1] [--endpoints completions,chat]

ENV holds vLLM and OneSeek's serving set. The model is random and small (5M parameters), so that the front
end and not the model is the limit. Both servers get the same options of the engine and stay up for the whole
run; they take turns, one at a time under load, so that a slow spell of the machine hits both alike. The
client is vLLM's own, `vllm bench serve`, in a process of its own for each run, and names the model
`oneseek`: OneSeek then detects each prompt's language and decides its route, with its receipts, metrics and
validation on, as always. Figures are medians over the rounds, ratios those of the medians (OneSeek's over
vLLM's; for times, below 1 is better). The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from bench.servers import Server, free_port, oneseek, serving

ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_NO_USAGE_STATS": "1", "HF_HUB_OFFLINE": "1"}
"""For both servers and the client."""

VLLM = (sys.executable, "-m", "vllm.entrypoints.cli.main")
"""What the `vllm` command runs."""

ENDPOINTS = {
    "completions": ("openai", "/v1/completions"),
    "chat": ("openai-chat", "/v1/chat/completions"),
}
"""Name → the client's backend, and the path."""

FIGURES = {
    "output_tokens_per_second": "output_throughput",
    "ttft_mean_ms": "mean_ttft_ms",
    "ttft_p50_ms": "p50_ttft_ms",
    "ttft_p99_ms": "p99_ttft_ms",
    "tpot_mean_ms": "mean_tpot_ms",
    "tpot_p50_ms": "p50_tpot_ms",
    "tpot_p99_ms": "p99_tpot_ms",
    "itl_mean_ms": "mean_itl_ms",
    "itl_p50_ms": "p50_itl_ms",
    "itl_p99_ms": "p99_itl_ms",
}
"""Our name of a figure → the client's."""

Figures = Mapping[str, float]


@dataclass(frozen=True, slots=True)
class Load:
    """What one run sends."""

    endpoint: str
    streams: int
    requests: int
    prompt: int
    """Tokens in."""
    tokens: int
    """Tokens out."""

    @property
    def name(self) -> str:
        """Such as `completions 64`."""
        return f"{self.endpoint} {self.streams}"


def engine_options(streams: int, context: int, extra: Mapping[str, str]) -> dict[str, str]:
    """The engine's options by vLLM's names, for both servers. Adapters are off: neither is asked for one."""
    return {
        "max_model_len": str(context),
        "max_num_seqs": str(streams),
        "max_num_batched_tokens": "4096",
        "enable_lora": "false",
        **extra,
    }


def oneseek_command(model: Path, port: int, options: Mapping[str, str]) -> list[str]:
    """OneSeek with vLLM as its engine, in this Python."""
    named = [item for name, value in options.items() for item in ("--engine-options", f"{name}={value}")]
    return oneseek(model, {}, port, "--engine", "vllm", *named)


def vllm_command(model: Path, port: int, options: Mapping[str, str]) -> list[str]:
    """`vllm serve` of this Python's vLLM. It knows the model by the name that OneSeek routes for, too."""
    command = [*VLLM, "serve", str(model), "--served-model-name", "base", "oneseek"]
    command += ["--host", "127.0.0.1", "--port", str(port)]
    for name, value in options.items():
        flag = name.replace("_", "-")
        command += {"true": [f"--{flag}"], "false": [f"--no-{flag}"]}.get(value, [f"--{flag}", value])
    return command


def measure(server: Server, model: Path, load: Load, seed: int, work: Path) -> Figures:
    """One run of vLLM's client. Raises `RuntimeError` where an answer is missing or of another length."""
    backend, path = ENDPOINTS[load.endpoint]
    out = work / "run.json"
    command = [*VLLM, "bench", "serve", "--backend", backend, "--endpoint", path, "--base-url", server.url]
    command += ["--model", "oneseek", "--tokenizer", str(model), "--dataset-name", "random"]
    command += ["--random-input-len", str(load.prompt), "--random-output-len", str(load.tokens)]
    command += ["--ignore-eos", "--num-prompts", str(load.requests), "--max-concurrency", str(load.streams)]
    command += ["--num-warmups", str(load.streams), "--seed", str(seed), "--disable-tqdm"]
    command += ["--percentile-metrics", "ttft,tpot,itl", "--metric-percentiles", "50,99"]
    command += ["--save-result", "--result-dir", str(work), "--result-filename", out.name]
    done = subprocess.run(command, env=os.environ | ENVIRONMENT, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"the client failed: {done.stderr[-2000:]}")
    result: dict[str, Any] = json.loads(out.read_text("utf-8"))
    made, wanted = result["total_output_tokens"], load.requests * load.tokens
    if result["completed"] != load.requests or made != wanted:
        raise RuntimeError(
            f"{server.url}: {result['completed']} of {load.requests} answered, {made} of {wanted} tokens"
        )
    return {ours: float(result[theirs]) for ours, theirs in FIGURES.items()}


def take_turns(
    servers: Mapping[str, Server], model: Path, loads: Sequence[Load], rounds: int, work: Path
) -> dict[tuple[str, str], list[Figures]]:
    """(load, server) → figures of each round. Who goes first changes with the round."""
    results: dict[tuple[str, str], list[Figures]] = {}
    for turn in range(rounds):
        for load in loads:
            for name in sorted(servers, reverse=turn % 2 == 1):
                figures = measure(servers[name], model, load, turn, work)
                results.setdefault((load.name, name), []).append(figures)
                rate, first = figures["output_tokens_per_second"], figures["ttft_p50_ms"]
                print(f"{turn + 1} {load.name:>15} {name:>8} {rate:8.0f} tokens/s, TTFT {first:6.1f} ms",
                      file=sys.stderr, flush=True)  # fmt: skip
    return results


def summary(results: Mapping[tuple[str, str], Sequence[Figures]]) -> dict[str, Any]:
    """Medians, their ratios, and the ratios of throughput of each round."""
    medians = {
        key: {name: statistics.median(run[name] for run in runs) for name in FIGURES}
        for key, runs in results.items()
    }
    report: dict[str, Any] = {}
    for load in dict.fromkeys(load for load, _ in results):
        ours, theirs = medians[load, "oneseek"], medians[load, "vllm"]
        rate = "output_tokens_per_second"
        pairs = zip(results[load, "oneseek"], results[load, "vllm"], strict=True)
        report[load] = {
            "oneseek": {name: round(value, 2) for name, value in ours.items()},
            "vllm": {name: round(value, 2) for name, value in theirs.items()},
            "ratio": {name: round(ours[name] / theirs[name], 3) for name in FIGURES if theirs[name]},
            "ratio_by_round": [round(ours[rate] / theirs[rate], 3) for ours, theirs in pairs],
        }
    return report


def main() -> None:
    """Parse the command line, measure, print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="64,8,1", help="streams at once, comma-separated")
    parser.add_argument("--endpoints", default="completions,chat")
    parser.add_argument("--requests", type=int, default=12, help="for each stream, at least 24 in all")
    parser.add_argument("--prompt", type=int, default=32, help="tokens in")
    parser.add_argument("--tokens", type=int, default=64, help="tokens out")
    parser.add_argument("--preset", default="5m")
    parser.add_argument(
        "--engine", action="append", default=[], metavar="NAME=VALUE", help="for both engines"
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    arguments = parser.parse_args()
    print(json.dumps(run(arguments)))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the model, start both servers, take turns, and report."""
    work: Path = arguments.work
    model = work / arguments.preset
    if not model.exists():
        made = [sys.executable, "-m", "bench.random_model", str(model), "--preset", arguments.preset]
        subprocess.run(made, check=True, stdout=subprocess.DEVNULL)
    streams = [int(count) for count in arguments.streams.split(",")]
    loads = [
        Load(endpoint, count, max(24, arguments.requests * count), arguments.prompt, arguments.tokens)
        for endpoint in arguments.endpoints.split(",")
        for count in streams
    ]
    extra = dict(item.partition("=")[::2] for item in arguments.engine)
    # A chat's template and marks add some tokens to the prompt.
    options = engine_options(max(streams), 2 * arguments.prompt + arguments.tokens + 64, extra)
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, command in (("oneseek", oneseek_command), ("vllm", vllm_command)):
            port = free_port()
            log = work / f"frontend-{name}.log"
            started = serving(command(model, port, options), port, log, ENVIRONMENT)
            servers[name] = stack.enter_context(started)
        results = take_turns(servers, model, loads, arguments.rounds, work)
    return {
        "bench": "frontend",
        "preset": arguments.preset,
        "shape": {name: getattr(arguments, name) for name in ("prompt", "tokens", "rounds")},
        "engine": options,
        "vllm": version("vllm"),
        "python": platform.python_version(),
        "cores": os.cpu_count(),
        "points": summary(results),
    }


if __name__ == "__main__":
    main()
