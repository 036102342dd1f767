"""What Ray costs: the same load on one process, on a cluster with one replica, and on one with two.

    python -m tests.ray.cost --preset 152m --clients 8 --seconds 20

Run it in the environment of `tests.ray.environment`. Every client streams one answer after the other. CPU
seconds are of all processes that serve, Ray's own included, and hardly depend on what else runs; tokens a
second do. The last line is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import psutil

from tests.ray.cluster import ROOT
from tests.ray.running import ADMIN, Cluster
from tests.ray.test_cluster import say
from tests.server.server_process import ServerProcess

TOKENS = 64
IDLE_SECONDS = 10.0
SETTINGS = (
    "base_model: {base}\nhome: {home}\nthreads: 1\nmax_num_seqs: 8\nadmin_keys: [{admin}]\n"
    "log_level: warning\n"
)


@dataclass(frozen=True)
class Cost:
    """One server under the load."""

    tokens_per_second: float
    cpu_ms_per_token: float
    """Less what is used without any request."""
    idle_cores: float
    """CPU seconds a second of all processes while there is no request."""
    first_token_ms: float
    """Median."""
    load_average: float


def main() -> None:
    """Measure the three, and print them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--preset", default="28m")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--seconds", type=float, default=20)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="oneseek-cost-") as scratch:
        folder = Path(scratch)
        base = folder / "random"
        command = [sys.executable, "-m", "bench.random_model", str(base), "--preset", arguments.preset]
        subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
        found = {"one process": _on_process(base, folder, arguments.clients, arguments.seconds)}
        for replicas in (1, 2):
            name = f"{replicas} on Ray"
            found[name] = _on_ray(base, folder, replicas, arguments.clients, arguments.seconds)
    for name, cost in found.items():
        print(f"{name:12} {cost}")
    print(json.dumps({name: asdict(cost) for name, cost in found.items()}))


def _on_process(base: Path, folder: Path, clients: int, seconds: float) -> Cost:
    server = ServerProcess(base, folder, "--max-num-seqs", "8", "--log-level", "warning")
    try:
        return _measure(server.url(), psutil.Process(server.process.pid), clients, seconds)
    finally:
        server.end()


def _on_ray(base: Path, folder: Path, replicas: int, clients: int, seconds: float) -> Cost:
    place = folder / f"ray-{replicas}"
    place.mkdir()
    config = SETTINGS.format(base=base, home=folder / "home", admin=ADMIN)
    cluster = Cluster(place, config, replicas)
    try:
        cluster.wait()
        return _measure(cluster.url, psutil.Process(cluster.process.pid), clients, seconds)
    finally:
        cluster.end()


def _measure(url: str, process: psutil.Process, clients: int, seconds: float) -> Cost:
    stop, firsts, counts = threading.Event(), list[float](), [0] * clients
    _stream(url, 0, firsts)
    firsts.clear()
    idle, began = _cpu(process), time.monotonic()
    time.sleep(IDLE_SECONDS)
    idle = (_cpu(process) - idle) / (time.monotonic() - began)

    def ask(number: int) -> None:
        seed = 1000 * (number + 1)
        while not stop.is_set():
            seed += 1
            counts[number] += _stream(url, seed, firsts)

    used, began = _cpu(process), time.monotonic()
    with ThreadPoolExecutor(clients) as pool:
        asking = [pool.submit(ask, number) for number in range(clients)]
        time.sleep(seconds)
        stop.set()
        for one in asking:
            one.result()
    lasted, tokens = time.monotonic() - began, sum(counts)
    used = _cpu(process) - used - idle * lasted
    return Cost(
        tokens_per_second=round(tokens / lasted, 1),
        cpu_ms_per_token=round(1000 * used / tokens, 3),
        idle_cores=round(idle, 3),
        first_token_ms=round(1000 * sorted(firsts)[len(firsts) // 2], 1),
        load_average=round(os.getloadavg()[0], 1),
    )


def _stream(url: str, seed: int, firsts: list[float]) -> int:
    """Read one answer; its tokens."""
    body = {
        "model": "base",
        "prompt": say(seed, 20),
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "stream": True,
    }
    began = time.monotonic()
    with httpx.stream("POST", f"{url}/v1/completions", json=body, timeout=600) as reply:
        lines = reply.iter_lines()
        next(lines)
        firsts.append(time.monotonic() - began)
        assert "data: [DONE]" in list(lines)
    return TOKENS


def _cpu(process: psutil.Process) -> float:
    """CPU seconds of a process and of all that it started."""
    total = 0.0
    for one in (process, *process.children(recursive=True)):
        try:
            times = one.cpu_times()
        except psutil.Error:
            continue
        total += times.user + times.system
    return total


if __name__ == "__main__":
    main()
