"""Measure what a refused request costs the server, and how many requests it answers at five times its maximum
rate.

    python -m bench.pressure.overload [--rounds 3] [--seconds 8] [--before CHECKOUT]

The server runs on one core, the client on another. First a closed loop with as many streams as batch slots
measures the peak rate. Then requests are sent at `--times` the peak rate, however the server answers. Goodput
is the number of complete answers per second, and per CPU second of the server, which is more precise on a
busy machine. Each question is sent twice, because real clients repeat refused requests.

The cost of a refusal is the CPU time of the server's HTTP thread. The server has one batch slot, which a long
stream occupies, and no queue; the stream's own CPU time is subtracted. There are three cases: a header names
the adapter (`headers`), the body names it (`body`), or the language of the prompt decides (`routed`). With
--before, the server of another checkout is measured in turn with this one. The last line of output is one
JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import json
import platform
import statistics
import sys
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import uvloop

from bench.pressure.client import Pool, Reply, chat, pool
from bench.pressure.start import Cores, cpu_seconds, pinned, take_turns, two_cores
from bench.servers import Server

ROWS, QUEUE = 8, 16
ALIAS = "oneseek-mini-sv"
KINDS: dict[str, tuple[str, dict[str, str]]] = {
    "headers": (ALIAS, {"X-OneSeek-Adapter": ALIAS}),
    "body": (ALIAS, {}),
    "routed": ("oneseek", {}),
}
"""Maps each case of a refused request to its model and headers: the adapter is named by a header (`headers`),
by the body (`body`), or not at all, so that the language of the prompt decides (`routed`).
"""


def questions() -> Iterator[str]:
    """Yield questions without end. Each question comes twice, because clients repeat refused requests."""
    for hundred in itertools.count():
        for number in (*range(100), *range(100)):
            shown = (100 * hundred + number) * 7919 % 100_003
            yield f"Fråga {shown}: vem är du, och vad kan du berätta om dig själv i dag?"


async def peak(server: Server, seconds: float, tokens: int, model: str) -> tuple[float, float]:
    """Run a closed loop, and return its answers per second, and its answers per CPU second of the server.
    Raises `RuntimeError` if the server refuses a request.
    """
    texts, end, done = questions(), time.perf_counter() + seconds, 0
    async with pool(server.url) as connections:

        async def stream() -> None:
            nonlocal done
            while time.perf_counter() < end:
                reply = await connections.ask(chat(next(texts), tokens, model=model))
                if reply.status != 200:
                    raise RuntimeError(
                        f"the server answered with status {reply.status}, so its peak rate cannot be "
                        "measured; it should answer every request, because there are only as many streams "
                        "as batch slots"
                    )
                done += 1

        began, spent = time.perf_counter(), cpu_seconds(server)
        await asyncio.gather(*(stream() for _ in range(ROWS)))
        return done / (time.perf_counter() - began), done / (cpu_seconds(server) - spent)


async def overload(server: Server, rate: float, seconds: float, tokens: int, model: str) -> dict[str, Any]:
    """Send requests at `rate` per second, however the server answers. Return the goodput and the number of
    answers by status.
    """
    texts, statuses, waits = questions(), Counter[str](), list[float]()
    tasks = set[asyncio.Task[None]]()
    async with pool(server.url) as connections:

        async def one(request: bytes) -> None:
            try:
                reply = await connections.ask(request)
            except OSError:
                statuses["lost"] += 1
                return
            whole = reply.status != 200 or b"data: [DONE]" in reply.body
            statuses[str(reply.status) if whole else "broken"] += 1
            if reply.status == 200:
                waits.append(reply.total)

        began, sent, since = time.perf_counter(), 0, 0.0
        warm, answered, spent = seconds / 4, 0, 0.0
        while (passed := time.perf_counter() - began) < seconds + warm:
            if passed >= warm and not since:
                answered, since, spent = statuses["200"], time.perf_counter(), cpu_seconds(server)
            for _ in range(max(0, int(passed * rate) - sent)):
                task = asyncio.create_task(one(chat(next(texts), tokens, model=model)))
                tasks.add(task)
                task.add_done_callback(tasks.discard)
                sent += 1
            await asyncio.sleep(0.002)
        answered = statuses["200"] - answered
        goodput = answered / (time.perf_counter() - since)
        by_cpu = answered / (cpu_seconds(server) - spent)
        for task in list(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    return {
        "goodput": goodput,
        "by_cpu": by_cpu,
        "sent_per_second": sent / (seconds + warm),
        "statuses": dict(statuses),
    }


async def refusals(server: Server, kind: str, count: int) -> dict[str, float]:
    """Return the CPU milliseconds and the wall-clock milliseconds that a refused request costs. The requests
    are sent one after another while a long stream occupies the server. Raises `RuntimeError` if the server
    does not refuse them.
    """
    model, headers = KINDS[kind]
    texts = questions()
    async with pool(server.url) as connections:
        holder = asyncio.create_task(_hold(connections))
        await asyncio.sleep(0.3)
        own = await _idle_rate(server, 1.0)
        request = [chat(next(texts), 16, model=model, headers=headers) for _ in range(count)]
        before, began = server.event_loop_seconds(), time.perf_counter()
        replies: list[Reply] = [await connections.ask(each) for each in request]
        wall = time.perf_counter() - began
        spent = server.event_loop_seconds() - before - own * wall
        holder.cancel()
        with suppress(asyncio.CancelledError):
            await holder
    refused = [reply for reply in replies if reply.status == 429]
    if len(refused) < 0.9 * count:
        raise RuntimeError(
            "the server should refuse every request while its only batch slot is taken, but the answers have "
            f"the statuses {Counter(r.status for r in replies)}; the first answer is: "
            f"{replies[0].body[:300]!r}"
        )
    return {"cpu_ms": spent / count * 1e3, "wall_ms": wall / count * 1e3}


async def _hold(connections: Pool) -> None:
    """Occupy the server's only batch slot with one stream after another, until this task is cancelled."""
    while True:
        await connections.ask(chat("Berätta en lång saga.", 400, model=ALIAS))


async def _idle_rate(server: Server, seconds: float) -> float:
    """Return the CPU seconds per second that the server's HTTP thread uses for the long stream alone."""
    before = server.event_loop_seconds()
    await asyncio.sleep(seconds)
    return (server.event_loop_seconds() - before) / seconds


def measure(root: Path, cores: Cores, arguments: argparse.Namespace) -> dict[str, Any]:
    """Run one round of all measurements on servers that run the checkout in `root`."""
    python = Path(sys.executable)
    figures: dict[str, Any] = {}
    options = ("--max-num-seqs", str(ROWS), "--max-queue", str(QUEUE), "--max-model-len", "1024")
    with pinned(python, cores, arguments.work, root, *options) as server:
        for kind in ("body", "routed"):
            model, tokens = KINDS[kind][0], arguments.tokens
            time.sleep(2)  # what an earlier load has left ends
            uvloop.run(peak(server, 2, tokens, model))
            best, by_cpu = uvloop.run(peak(server, arguments.seconds, tokens, model))
            found = uvloop.run(overload(server, arguments.times * best, arguments.seconds, tokens, model))
            ratios = {"ratio": found["goodput"] / best, "ratio_by_cpu": found["by_cpu"] / by_cpu}
            figures[f"overload {kind}"] = {"peak": best, **found, **ratios}
    options = ("--max-num-seqs", "1", "--max-queue", "0", "--max-model-len", "1024")
    with pinned(python, cores, arguments.work, root, *options) as server:
        for kind in KINDS:
            uvloop.run(refusals(server, kind, 50))
            figures[f"refusal {kind}"] = uvloop.run(refusals(server, kind, arguments.refusals))
    return figures


def main(given: Sequence[str] | None = None) -> None:
    """Run the overload benchmark: parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=8, help="seconds of each measurement")
    parser.add_argument(
        "--times", type=float, default=5, help="request rate, as a multiple of the measured peak rate"
    )
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each answer")
    parser.add_argument("--refusals", type=int, default=1000)
    parser.add_argument(
        "--before", type=Path, help="checkout of another commit, measured in turn with this one"
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    arguments = parser.parse_args(given)
    cores = two_cores()
    rounds = take_turns(arguments, lambda root, _: measure(root, cores, arguments))
    print(json.dumps({"bench": "overload", "python": platform.python_version(), **summary(rounds)}))


def summary(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the median of each figure over the rounds, separately for this checkout and for that of
    --before.
    """
    return {
        name: {
            key: {
                unit: round(statistics.median(each[key][unit] for each in found), 3)
                for unit, value in found[0][key].items()
                if isinstance(value, float)
            }
            for key in found[0]
        }
        for name, found in rounds.items()
    }


if __name__ == "__main__":
    main()
