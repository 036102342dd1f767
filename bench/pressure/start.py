"""Start servers for the benchmarks in `bench.pressure`: the server on one CPU core, and the client on
another.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from bench.servers import Server, free_port, serving

Cores = tuple[int, int]
"""The CPU core of the server, and the CPU core of the client."""


def two_cores() -> Cores:
    """Return the first two cores that this process may use. Raises `RuntimeError` if there is only one, or if
    the system cannot pin processes to cores.
    """
    if not hasattr(os, "sched_getaffinity"):
        raise RuntimeError(
            "this benchmark pins processes to CPU cores, which is supported on Linux only; run it on Linux"
        )
    cores = sorted(os.sched_getaffinity(0))
    if len(cores) < 2:
        raise RuntimeError(
            "this benchmark needs two CPU cores, for the server and the client, but this process may use "
            "only one"
        )
    return cores[0], cores[1]


@contextmanager
def pinned(python: Path, cores: Cores, work: Path, root: Path, *options: str) -> Generator[Server]:
    """Start a server from the checkout in `root` on the first of `cores`, and pin this process to the second.
    Stop the server when the `with` block ends.
    """
    port = free_port()
    os.sched_setaffinity(0, {cores[1]})
    command = [str(python), "-m", "server", "serve", "--host", "127.0.0.1", "--port", str(port)]
    command += ["--threads", "1", "--log-level", "warning", *options]
    home = work / f"home-{root.name}"
    home.mkdir(parents=True, exist_ok=True)
    env = {"ONESEEK_HOME": str(home), "PYTHONPATH": str(root)}
    command = ["env", "-C", str(root), "taskset", "-c", str(cores[0]), *command]
    with serving(command, port, work / f"pressure-{root.name}.log", env) as server:
        yield server


def cpu_seconds(server: Server) -> float:
    """Return the CPU seconds that all threads of the server's process have used."""
    times = psutil.Process(server.process).cpu_times()
    return times.user + times.system


def take_turns(
    arguments: argparse.Namespace, measure: Callable[[Path, int], dict[str, Any]]
) -> dict[str, list[dict[str, Any]]]:
    """Call `measure` in each of `--rounds` rounds, for this checkout and for that of `--before` if it is
    given. Return the results of both, by `now` and `before`.

    `measure` gets the checkout's folder and the number of the round, from 0. The order of the checkouts
    alternates.
    """
    arguments.work.mkdir(parents=True, exist_ok=True)
    roots = {"now": Path(__file__).resolve().parents[2]}
    if arguments.before:
        roots["before"] = arguments.before.resolve()
    rounds: dict[str, list[dict[str, Any]]] = {name: [] for name in roots}
    for turn in range(arguments.rounds):
        for name in sorted(roots, reverse=turn % 2 == 1):
            rounds[name].append(measure(roots[name], turn))
            print(turn + 1, name, json.dumps(rounds[name][-1]), file=sys.stderr, flush=True)
    return rounds
