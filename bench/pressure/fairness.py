"""Measure how well a client with few requests is served while another client floods the server.

    python -m bench.pressure.fairness [--rounds 3] [--answers 60] [--before CHECKOUT]

The server runs on one core, the clients on another. The two clients use different API keys and the same
adapter, or with `--shares adapters` different adapters and no key. The polite client keeps half of the batch
slots busy with short answers. The other client sends nothing (`idle`), keeps the other half of the slots busy
with long answers (`neighbour`), or floods the server (`flood`): it keeps `--flood` long streams open, and
repeats each a second after the server refuses it. These three modes are measured in turn on the same server.

For each mode, the result has the 95th percentiles of the polite client's TTFT and end-to-end latency in
milliseconds, and how many of its requests were refused. It also has the ratios of the latencies with the
flood to those with the neighbour. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import platform
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop

from bench.pressure.client import Pool, Reply, chat, pool
from bench.pressure.start import Cores, pinned, take_turns, two_cores

KEYS = ("polite-key-1", "flood-key-1")
SV, EN = "oneseek-mini-sv", "oneseek-mini-en"
MODES = ("idle", "neighbour", "flood")
PAUSE = 1.0
"""Seconds after which the flooding client repeats a refused request: the smallest `Retry-After` that the
server sends.
"""

Ask = Callable[[int], bytes]
"""A function that returns the bytes of the request with a given number."""


@dataclass(slots=True)
class Seen:
    """Results of the client with few requests in one mode, in which the other client is idle, busy or floods
    the server: its latencies in seconds, and the number of refused requests of both clients.
    """

    first: list[float] = field(default_factory=list[float])
    whole: list[float] = field(default_factory=list[float])
    refused: int = 0
    flood_refused: int = 0

    def add(self, reply: Reply) -> None:
        """Record an answer to the client with few requests: its latencies, or that the server refused the
        request.
        """
        if reply.status == 200 and b"data: [DONE]" in reply.body:
            self.first.append(reply.first)
            self.whole.append(reply.total)
        else:
            self.refused += 1

    def p95(self) -> dict[str, float]:
        """Return the 95th percentiles, in milliseconds, of the TTFT and the end-to-end latency of the client
        with few requests.
        """
        return {
            "ttft": float(np.percentile(self.first, 95)) * 1e3,
            "whole": float(np.percentile(self.whole, 95)) * 1e3,
        }


async def watch(url: str, arguments: argparse.Namespace, mode: str, polite: Ask, other: Ask) -> Seen:
    """Run one of `MODES`, and return what the client with few requests experiences in it. The other client is
    absent (`idle`), keeps half of the slots busy (`neighbour`), or floods the server (`flood`).
    """
    seen = Seen()
    crowd = {"idle": 0, "neighbour": arguments.rows // 2, "flood": arguments.flood}[mode]
    left = iter(range(arguments.answers))
    async with pool(url) as ours, pool(url) as theirs:
        streams = [asyncio.create_task(_long(theirs, other, seen, n)) for n in range(crowd)]
        await asyncio.sleep(2.0 if crowd else 0.2)

        async def one() -> None:
            for number in left:
                seen.add(await ours.ask(polite(number)))

        await asyncio.gather(*(one() for _ in range(arguments.rows // 2)))
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)
    await asyncio.sleep(1.0)
    return seen


async def _long(connections: Pool, ask: Ask, seen: Seen, number: int) -> None:
    while True:
        reply = await connections.ask(ask(number))
        number += 1000
        if reply.status != 200:
            seen.flood_refused += 1
            await asyncio.sleep(PAUSE)


def asks(arguments: argparse.Namespace) -> tuple[Ask, Ask]:
    """Return two functions that make requests: for the client with few requests, and for the client that
    floods the server.
    """
    by_key = arguments.shares == "keys"
    text = "Nummer {}: vem är du, och vad kan du berätta om dig själv och om din dag i dag?"

    def polite(number: int) -> bytes:
        key = KEYS[0] if by_key else ""
        return chat(text.format(number), arguments.tokens, model=SV, key=key)

    def other(number: int) -> bytes:
        model, key = (SV, KEYS[1]) if by_key else (EN, "")
        return chat(text.format(7 * number), arguments.long, model=model, key=key)

    return polite, other


def measure(root: Path, cores: Cores, arguments: argparse.Namespace, turn: int) -> dict[str, Any]:
    """Measure each mode of the other client (idle, busy, flooding) once on one server, which runs the
    checkout in `root`.
    """
    options = ["--max-num-seqs", str(arguments.rows), "--max-queue", str(arguments.queue)]
    options += ["--max-model-len", "1024"]
    if arguments.shares == "keys":
        options += [item for key in KEYS for item in ("--api-keys", key)]
    found: dict[str, Any] = {}
    polite, other = asks(arguments)
    with pinned(Path(sys.executable), cores, arguments.work, root, *options) as server:
        modes = MODES[turn % 3 :] + MODES[: turn % 3]
        for mode in modes:
            seen = uvloop.run(watch(server.url, arguments, mode, polite, other))
            found[mode] = {**seen.p95(), "refused": seen.refused, "flood_refused": seen.flood_refused}
    found["flood / neighbour"] = {
        name: found["flood"][name] / found["neighbour"][name] for name in ("ttft", "whole")
    }
    return found


def main(given: Sequence[str] | None = None) -> None:
    """Run the fairness benchmark: parse the command line, measure, and print the result."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--answers", type=int, default=60, help="answers for the polite client in each mode")
    parser.add_argument("--shares", choices=("keys", "adapters"), default="keys")
    parser.add_argument("--rows", type=int, default=8)
    parser.add_argument("--queue", type=int, default=32)
    parser.add_argument(
        "--flood", type=int, default=100, help="number of long streams that the flood keeps open"
    )
    parser.add_argument("--tokens", type=int, default=48, help="tokens of each answer for the polite client")
    parser.add_argument("--long", type=int, default=400, help="tokens of each answer for the flooding client")
    parser.add_argument(
        "--before", type=Path, help="checkout of another commit, measured in turn with this one"
    )
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    arguments = parser.parse_args(given)
    cores = two_cores()
    rounds = take_turns(arguments, lambda root, turn: measure(root, cores, arguments, turn))
    report = {
        name: {
            mode: {unit: round(statistics.median(r[mode][unit] for r in found), 2) for unit in found[0][mode]}
            for mode in found[0]
        }
        for name, found in rounds.items()
    }
    print(json.dumps({"bench": "fairness", "python": platform.python_version(), **report}))


if __name__ == "__main__":
    main()
