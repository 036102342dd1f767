"""Measure the CPU time of the server's HTTP thread for a short chat, and for each token that it streams.

    python -m bench.pressure.cost [--before FOLDER] [--rounds 7] [--requests 600] [--streams 32]

The server runs on one core, the client on another. A short chat asks for one token, so nearly all of its cost
is that of the HTTP front end, such as parsing, routing, chat template and tokenizing. The cost of a streamed
token is measured with `--streams` long answers. With --before, the server of another checkout in FOLDER is
measured in turn with this one. The last line of output is one JSON object with the medians, and their ratios
to those of FOLDER.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench.pressure.client import Pool, chat, pool
from bench.pressure.start import pinned, take_turns, two_cores
from bench.servers import Server

QUESTIONS = (
    "How do I boil an egg number {}?",
    "Hur kokar jag ägg nummer {}?",
    "What is the capital of country {}?",
    "Vilken är huvudstaden i land {}?",
)
"""Templates of questions. Each request gets a new question, so that the server cannot reuse a routing
decision.
"""


async def ask_all(asked: Pool, requests: Sequence[bytes], streams: int) -> None:
    """Send `requests` over `streams` connections. Raises `RuntimeError` if an answer does not have status
    200.
    """
    left = iter(requests)

    async def ask_next() -> None:
        for request in left:
            reply = await asked.ask(request)
            if reply.status != 200:
                raise RuntimeError(
                    f"the server answered with status {reply.status} instead of 200, so the cost cannot be "
                    f"measured: {reply.body[:300]!r}"
                )

    await asyncio.gather(*(ask_next() for _ in range(streams)))


def chats(count: int, tokens: int, first: int) -> list[bytes]:
    """Return `count` requests for streamed chats of `tokens` answer tokens. Their questions have numbers from
    `first` on, so that each is new.
    """
    return [
        chat(QUESTIONS[number % len(QUESTIONS)].format(number), tokens, model="auto")
        for number in range(first, first + count)
    ]


async def measure_server(server: Server, arguments: argparse.Namespace) -> dict[str, Any]:
    """Warm up a server, and measure the CPU time of its HTTP thread for a short chat and for a streamed
    token.
    """
    async with pool(server.url) as asked:
        await ask_all(asked, chats(100, 1, 0), 8)
        await ask_all(asked, chats(arguments.streams, 16, 1_000), arguments.streams)
        before = server.event_loop_seconds()
        await ask_all(asked, chats(arguments.requests, 1, 10_000), 8)
        between = server.event_loop_seconds()
        await ask_all(asked, chats(2 * arguments.streams, arguments.tokens, 100_000), arguments.streams)
        after = server.event_loop_seconds()
    request = (between - before) / arguments.requests
    long = 2 * arguments.streams
    token = (after - between - long * request) / (long * (arguments.tokens - 1))
    return {"request_ms": round(1e3 * request, 4), "token_us": round(1e6 * token, 2)}


def medians(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    """Return the median of each figure over the rounds. If another checkout was measured too, also return the
    median ratio to it.
    """
    found: dict[str, Any] = {
        name: {figure: statistics.median(one[figure] for one in ones) for figure in ones[0]}
        for name, ones in rounds.items()
    }
    if "before" in rounds:
        pairs = list(zip(rounds["now"], rounds["before"], strict=True))
        found["ratio"] = {
            figure: round(statistics.median(now[figure] / then[figure] for now, then in pairs), 3)
            for figure in rounds["now"][0]
        }
    return found


def main() -> int:
    """Measure the costs in rounds, and print the result as JSON."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument(
        "--before", type=Path, help="checkout of another commit, measured in turn with this one"
    )
    parser.add_argument("--work", type=Path, default=Path("build/bench"))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--requests", type=int, default=600)
    parser.add_argument("--streams", type=int, default=32)
    parser.add_argument("--tokens", type=int, default=120)
    arguments = parser.parse_args()
    cores = two_cores()

    def measure(root: Path, _turn: int) -> dict[str, Any]:
        options = ("--max-queue", "128", "--max-num-seqs", str(arguments.streams))
        with pinned(Path(sys.executable), cores, arguments.work, root, *options) as server:
            return asyncio.run(measure_server(server, arguments))

    print(json.dumps(medians(take_turns(arguments, measure))))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
