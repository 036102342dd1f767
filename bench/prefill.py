"""Measure how fast OneSeek's embedded engine computes prompts in each of its number formats, over HTTP, in
one run.

    python -m bench.prefill [--preset 152m] [--prompts 128,512] [--rounds 7] [--threads 2]

The formats are fp32, bf16, int8 and int4, with one server each. Requests are sent one at a time, with one
answer token and with adapters in turn. All servers run for the whole benchmark and are measured in turn. The
figures are medians over the rounds; a ratio compares measurements of the same round. The result also has the
largest difference between the log probabilities of the next token in each format and those in fp32. The last
line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import platform
import statistics
import urllib.request
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from bench.embedded import NAMES, jobs, measure
from bench.random_model import at_hand
from bench.servers import Server, free_port, oneseek, serving

CONTENDERS: dict[str, tuple[str, ...]] = {
    "fp32": (),
    "bf16": ("--prefill-dtype", "bf16"),
    "int8": ("--quantize", "int8"),
    "int4": ("--quantize", "int4"),
}
AT_ONCE = 6
"""Number of requests in a measurement: two prompts for the base and for each of the two adapters."""


def next_token(server: Server, body: dict[str, Any]) -> dict[str, float]:
    """Return the five most likely next tokens after a prompt, with their log probabilities."""
    asked = json.dumps({**body, "logprobs": 5}).encode()
    headers = {"Content-Type": "application/json"}
    request = urllib.request.Request(f"{server.url}/v1/completions", asked, headers)
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)["choices"][0]["logprobs"]["top_logprobs"][0]


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Make the model, start the servers, measure them in turn, and return the report."""
    work: Path = arguments.work
    model, adapters, vocabulary = at_hand(work, arguments.preset)
    lengths = [int(length) for length in arguments.prompts.split(",")]
    options = ["--threads", str(arguments.threads), "--max-num-seqs", "4", "--no-prefix-caching"]
    options += ["--max-num-batched-tokens", str(max(lengths)), "--home", str(work / "home")]
    seeds = itertools.count()
    times: dict[tuple[str, int], list[float]] = {}
    apart = dict.fromkeys(CONTENDERS, 0.0)
    with ExitStack() as stack:
        servers: dict[str, Server] = {}
        for name, more in CONTENDERS.items():
            port = free_port()
            command = oneseek(model, adapters, port, *options, *more)
            servers[name] = stack.enter_context(serving(command, port, work / f"prefill-{name}.log"))
        for turn, length in itertools.product(range(arguments.rounds + 1), lengths):
            load = jobs(vocabulary, AT_ONCE, length, 1, NAMES, next(seeds))
            for name, server in servers.items():
                outcome = measure(server, load, 1)
                if turn:  # the first turn warms up
                    times.setdefault((name, length), []).append(outcome.seconds)
            for job in load[: len(NAMES)]:
                wanted = next_token(servers["fp32"], job.body)
                for name, server in servers.items():
                    found = next_token(server, job.body)
                    both = wanted.keys() & found.keys()
                    apart[name] = max([apart[name], *(abs(wanted[key] - found[key]) for key in both)])
    return {
        "bench": "prefill",
        "preset": arguments.preset,
        "threads": arguments.threads,
        "rounds": arguments.rounds,
        "python": platform.python_version(),
        "tokens_per_second": {
            f"{name} {length}": round(AT_ONCE * length / statistics.median(found))
            for (name, length), found in times.items()
        },
        "times_fp32": {
            f"{name} {length}": round(
                statistics.median(a / b for a, b in zip(times["fp32", length], found, strict=True)), 2
            )
            for (name, length), found in times.items()
            if name != "fp32"
        },
        "largest_log_probability_difference": {name: round(value, 4) for name, value in apart.items()},
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run the prefill benchmark: parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", default="152m")
    parser.add_argument("--prompts", default="128,512", help="prompt lengths in tokens, comma-separated")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    print(json.dumps(run(parser.parse_args(given))))


if __name__ == "__main__":
    main()
