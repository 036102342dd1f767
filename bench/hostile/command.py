"""Measure how long other clients wait while a server gets the largest request bodies and produces the largest
answers.

    python -m bench.hostile [--url http://127.0.0.1:8000 | --options "--max-num-seqs 8"] [--only chat]

The benchmark starts a OneSeek server with the base that ships with it, or uses the server at --url. A
separate process measures the response time of `GET /live` all the time: while the server is idle, while a few
ordinary streams run, and during each hostile request, sent alone and then eight times at once. The last line
of output is one JSON object. The exit code is 1 if `/live` took longer than the limits, or if a hostile
request got an unexpected status.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import shlex
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.parse import urlsplit

from bench.hostile.bodies import CHAT, HostileRequest, shaped, small_elements, valid_requests
from bench.hostile.sampler import LiveSampler, Waits, sampling
from bench.servers import free_port, serving

P999_MS, WORST_MS = 50.0, 100.0
"""Limits for the response time of `/live` during the hostile requests, in milliseconds: the 99.9th
percentile, and the maximum.
"""
TOGETHER = 8
IDLE_SECONDS = 10.0
SERVED = frozenset({200})
REFUSED = frozenset({200, 400, 413, 429})
"""HTTP statuses that are acceptable answers to an invalid hostile request. A 5xx status never is."""


def send(host: str, port: int, request: HostileRequest) -> int:
    """Send a request, read its whole answer, and return the HTTP status."""
    connection = http.client.HTTPConnection(host, port, timeout=300)
    try:
        connection.request("POST", request.path, request.body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        while answer.read(1 << 16):
            pass
        return answer.status
    finally:
        connection.close()


def measured(sampler: LiveSampler, work: Callable[[], Any]) -> list[float]:
    """Run `work`, and return the response times of `/live` during it, in seconds."""
    began = time.monotonic()
    work()
    return sampler.since(began)


def requests(kinds: str, size: int, context: int, only: str) -> Iterator[HostileRequest]:
    """Yield the hostile requests of the comma-separated `kinds` whose name contains `only`. Each is built
    when it is needed, because they are large.
    """
    sources = {
        "fields": lambda: small_elements(size),
        "shapes": lambda: shaped(size),
        "valid": lambda: valid_requests(context),
    }
    for kind in kinds.split(","):
        yield from (request for request in sources[kind]() if only in request.name)


def attack(
    host: str, port: int, sampler: LiveSampler, sent: Iterator[HostileRequest]
) -> tuple[list[float], list[dict[str, Any]], list[str]]:
    """Send each hostile request alone, and then `TOGETHER` times at once. Return the response times of
    `/live` meanwhile, the ten requests that delayed it the most, and the unexpected statuses.
    """
    waits: list[float] = []
    slow: list[dict[str, Any]] = []
    faults: list[str] = []
    with ThreadPoolExecutor(TOGETHER) as pool:
        for request in sent:
            for count in (1, TOGETHER):
                statuses: list[int] = []

                def work(
                    request: HostileRequest = request, count: int = count, into: list[int] = statuses
                ) -> None:
                    into.extend(pool.map(partial(send, host, port), [request] * count))

                began = time.monotonic()
                found = measured(sampler, work)
                waits += found
                worst = round(1000 * max(found), 1)
                took = round(time.monotonic() - began, 2)
                slow.append({"request": request.name, "at_once": count, "worst_ms": worst, "seconds": took})
                good = SERVED | {429} if request.valid else REFUSED
                if not set(statuses) <= good or (request.valid and 200 not in statuses):
                    faults.append(f"{request.name}: {sorted(set(statuses))}")
                print(f"{worst:7.1f} ms  {count} × {request.name} {sorted(set(statuses))}", file=sys.stderr)
    return waits, sorted(slow, key=lambda one: -float(one["worst_ms"]))[:10], faults


def streams(host: str, port: int, count: int) -> None:
    """Run `count` ordinary chat streams at once, and wait until they end."""
    said = [{"role": "user", "content": "Berätta om hösten."}]
    body = json.dumps({"messages": said, "max_tokens": 200, "ignore_eos": True, "stream": True}).encode()
    with ThreadPoolExecutor(count) as pool:
        list(pool.map(partial(send, host, port), [HostileRequest("plain", CHAT, body)] * count))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Start the server, send the hostile requests while `/live` is measured, and return the report."""
    with ExitStack() as stack:
        if arguments.url:
            parts = urlsplit(arguments.url)
            host, port = parts.hostname or "127.0.0.1", parts.port or 80
        else:
            work = Path(stack.enter_context(TemporaryDirectory()))
            host, port = "127.0.0.1", free_port()
            command = [sys.executable, "-m", "server", "serve", "--port", str(port), "--home", str(work)]
            command += shlex.split(arguments.options)
            stack.enter_context(serving(command, port, work / "server.log"))
        sampler = stack.enter_context(sampling(port))
        streams(host, port, 1)
        idle = measured(sampler, lambda: time.sleep(IDLE_SECONDS))
        plain = measured(sampler, lambda: streams(host, port, 4))
        sent = requests(arguments.kinds, arguments.size, arguments.context, arguments.only)
        waits, slow, faults = attack(host, port, sampler, sent)
    return report(idle, plain, waits) | {"slowest": slow, "faults": faults}


def report(idle: Sequence[float], plain: Sequence[float], waits: Sequence[float]) -> dict[str, Any]:
    """Return the statistics of the response times of `/live` (idle, with plain streams, with hostile
    requests), and whether the limits were kept.
    """
    under = Waits.of(waits)
    return {
        "bench": "hostile",
        "cores": os.cpu_count(),
        "idle_ms": asdict(Waits.of(idle)),
        "plain_streams_ms": asdict(Waits.of(plain)),
        "attacked_ms": asdict(under),
        "mean_ms": round(1000 * statistics.fmean(waits), 2),
        "limits_ms": {"p999": P999_MS, "worst": WORST_MS},
        "kept": under.p999 <= P999_MS and under.worst <= WORST_MS,
    }


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark of hostile requests: parse the command line, measure, and print the result. Exit with
    1 if a limit was exceeded or a status was unexpected.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--url", default="", help="URL of a running server (default: start one)")
    parser.add_argument("--options", default="", help="flags for the server that is started")
    parser.add_argument(
        "--size", type=int, default=4 * 1024 * 1024 - 64, help="size of the largest request bodies, in bytes"
    )
    parser.add_argument("--context", type=int, default=1024, help="context length of the base, in tokens")
    parser.add_argument("--kinds", default="fields,shapes,valid", help="kinds of requests, comma-separated")
    parser.add_argument(
        "--only", default="", help="send only the hostile requests whose name contains this text"
    )
    result = run(parser.parse_args(given))
    print(json.dumps(result))
    if not result["kept"] or result["faults"]:
        sys.exit(1)
