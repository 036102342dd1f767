"""Measure the TTFT of a server that has many more adapters than adapter slots.

    python -m bench.pressure.slots [--adapters 1000] [--slots 8] [--requests 600] [--clients 2]

The server runs on one core, the client on another. The folder `lora_adapters` holds random adapters for a
random base. Each request names an adapter drawn by Zipf's law: the n-th most popular has the weight 1/n. A
request is cold if its adapter had to be loaded; its answer then has the header `X-OneSeek-Adapter-Wait`. The
time of a load without the wait for other loads comes from the server's metrics.

The last line of output is one JSON object. It includes the seconds of two starts: at the first start the
server hashes every adapter, because no digest is recorded yet, and at the second it hashes none.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import platform
import re
import sys
import time
import urllib.request
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.pressure.client import Reply, chat, pool
from bench.pressure.start import two_cores
from bench.random_model import PRESETS, write_adapter, write_model
from bench.servers import Server, free_port, serving

ROOT = Path(__file__).resolve().parents[2]
RANK, TARGETS = 8, ("q_proj", "v_proj")
TEXT = "Nummer {}: vem är du, och vad kan du berätta om dig själv och om din dag i dag?"


def prepare(site: Path, preset: str, count: int) -> None:
    """Write a base and `count` adapters to the folder `site`, unless they exist."""
    if not (site / "models" / "base" / "config.json").exists():
        write_model(site / "models" / "base", PRESETS[preset])
    for number in range(count):
        folder = site / "lora_adapters" / name_of(number)
        if not folder.exists():
            write_adapter(folder, PRESETS[preset], RANK, TARGETS, number)


def name_of(number: int) -> str:
    """Return the name of the adapter with a given number."""
    return f"voice-{number}"


@contextmanager
def server(site: Path, arguments: argparse.Namespace, core: int) -> Generator[tuple[Server, float]]:
    """Start a server with the base and the adapters in `site`. Yield the server, and the seconds that its
    start took.
    """
    port = free_port()
    command = [sys.executable, "-m", "server", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", "1", "--log-level", "warning", "--base-model", "models/base"]
    command += ["--max-adapters", str(arguments.slots), "--max-model-len", "1024"]
    env = {"ONESEEK_HOME": str(site / "home"), "PYTHONPATH": str(ROOT)}
    command = ["env", "-C", str(site), "taskset", "-c", str(core), *command]
    began = time.perf_counter()
    with serving(command, port, site / "server.log", env) as running:
        yield running, time.perf_counter() - began


def popularity(count: int, requests: int) -> Sequence[int]:
    """Return the number of the adapter that each request names, drawn by Zipf's law."""
    weights = 1 / np.arange(1, count + 1)
    return np.random.default_rng(7).choice(count, requests, p=weights / weights.sum()).tolist()


async def ask_all(url: str, arguments: argparse.Namespace) -> list[Reply]:
    """Send all requests with `clients` of them at a time, and return the answers."""
    left = iter(enumerate(popularity(arguments.adapters, arguments.requests)))
    replies: list[Reply] = []
    async with pool(url) as connections:

        async def client() -> None:
            for number, adapter in left:
                body = chat(TEXT.format(number), arguments.tokens, model=name_of(adapter))
                replies.append(await connections.ask(body))

        await asyncio.gather(*(client() for _ in range(arguments.clients)))
    return replies


def loads(url: str) -> dict[str, float]:
    """Return the number of adapter loads so far, their mean milliseconds, and the upper bound in milliseconds
    of the histogram bucket below which 99% of them are.
    """
    with urllib.request.urlopen(url + "/metrics", timeout=60) as response:
        text = response.read().decode()
    name = "oneseek_adapter_load_seconds"
    total = sum(map(float, re.findall(rf"^{name}_sum{{.*}} (\S+)$", text, re.MULTILINE)))
    count = sum(map(float, re.findall(rf"^{name}_count{{.*}} (\S+)$", text, re.MULTILINE)))
    buckets: dict[float, float] = {}
    for bound, value in re.findall(rf'^{name}_bucket{{.*le="([^"]+)".*}} (\S+)$', text, re.MULTILINE):
        buckets[float(bound)] = buckets.get(float(bound), 0.0) + float(value)
    most = min((bound for bound, value in buckets.items() if value >= 0.99 * count), default=0.0)
    return {"count": count, "mean": 1e3 * total / max(1.0, count), "p99_within": 1e3 * most}


def quantiles(seconds: Sequence[float]) -> dict[str, float]:
    """Return the median and the 99th percentile of `seconds`, in milliseconds. Empty without values."""
    if not seconds:
        return {}
    return {f"p{q}": round(1e3 * float(np.percentile(seconds, q)), 2) for q in (50, 99)}


def report(replies: Sequence[Reply], load: dict[str, float], starts: Sequence[float]) -> dict[str, Any]:
    """Return the results, separately for requests whose adapter was in a slot and for requests that waited
    for a load.
    """
    marked = re.compile(rb"x-oneseek-adapter-wait: (\S+)")
    good = [reply for reply in replies if reply.status == 200 and b"data: [DONE]" in reply.body]
    cold = [reply for reply in good if marked.search(reply.head)]
    resident = [reply.first for reply in good if not marked.search(reply.head)]
    waits = [float(found[1]) for reply in cold if (found := marked.search(reply.head))]
    hot, first = quantiles(resident), quantiles([reply.first for reply in cold])
    mean = load["mean"]
    return {
        "refused": len(replies) - len(good),
        "resident": {"count": len(resident), **hot},
        "cold": {"count": len(cold), **first},
        "wait": quantiles(waits),
        "load": {name: round(value, 2) for name, value in load.items()},
        "cold without load / resident": {q: round((first[q] - mean) / hot[q], 2) for q in hot if q in first},
        "start_seconds": [round(start, 2) for start in starts],
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark of adapter slots: parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--adapters", type=int, default=1000)
    parser.add_argument("--slots", type=int, default=8)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--tokens", type=int, default=16, help="tokens of each answer")
    parser.add_argument("--preset", choices=PRESETS, default="5m")
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    arguments = parser.parse_args(given)
    site = arguments.work.resolve() / f"slots-{arguments.preset}-{arguments.adapters}"
    prepare(site, arguments.preset, arguments.adapters)
    ours, theirs = two_cores()
    os.sched_setaffinity(0, {theirs})
    starts: list[float] = []
    with server(site, arguments, ours) as (_, seconds):
        starts.append(seconds)
    with server(site, arguments, ours) as (running, seconds):
        starts.append(seconds)
        replies = uvloop.run(ask_all(running.url, arguments))
        load = loads(running.url)
    names = ("adapters", "slots", "requests", "clients", "tokens", "preset")
    asked = {name: getattr(arguments, name) for name in names}
    print(
        json.dumps(
            {"bench": "slots", "python": platform.python_version()} | asked | report(replies, load, starts)
        )
    )


if __name__ == "__main__":
    main()
