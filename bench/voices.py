"""Measure how long OneSeek takes to let five models answer one question together, compared with one after
another.

    python -m bench.voices [--preset mini] [--quantize int8] [--rounds 5] [--tokens 128]

The five models share one base: the base itself, two LoRA adapters, and two blends of the adapters. In each
round, a question goes to all models together, and to each model alone over the same endpoint; the order
alternates. No question is repeated, so that the prefix cache gives no advantage. The preset `mini` is the
base that ships with OneSeek; every other preset is a random model, which is written once to the folder
--work.

The result compares the time together with the sum of the times alone, and with the slowest time alone, as
medians over the rounds. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import platform
import statistics
import sys
import time
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from bench.random_model import PRESETS, at_hand
from bench.servers import Server, free_port, oneseek, serving

PATH = "/api/oqt/multi-model-query"
MINI = "mini"
LONGEST_QUESTION = 64
"""Maximum length of a question in tokens."""


def questions() -> Iterator[str]:
    """Yield an endless series of questions, which differ in their first words."""
    return (f"{number * 7919 % 100_003}: vem är du, och vad kan du berätta?" for number in itertools.count(1))


def ask(server: Server, text: str, models: Sequence[str], tokens: int) -> float:
    """Send a question to `models`, and return the seconds until all have answered. Raises `RuntimeError` if
    an answer is incomplete.
    """
    body = {"question": text, "models": list(models), "max_tokens": tokens}
    body |= {"min_tokens": tokens, "ignore_eos": True, "temperature": 0}
    request = urllib.request.Request(
        server.url + PATH, json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    began = time.perf_counter()
    with urllib.request.urlopen(request, timeout=600) as response:
        answer = json.load(response)
    seconds = time.perf_counter() - began
    for voice in answer["voices"]:
        counts = voice["tokens"] or {}
        if counts.get("completion") != tokens or not 0 < counts["prompt"] <= LONGEST_QUESTION:
            raise RuntimeError(
                f"the answer of the model {voice['model']} is incomplete: status {voice['status']}, tokens "
                f"{counts}, error {voice['error']}"
            )
    return seconds


def measure(
    server: Server, texts: Iterator[str], models: Sequence[str], tokens: int, turn: int
) -> dict[str, float]:
    """Measure one round: all models together, and each model alone. Return the seconds and their ratios."""
    together = 0.0
    if turn % 2 == 0:
        together = ask(server, next(texts), models, tokens)
    alone = [ask(server, next(texts), [name], tokens) for name in models]
    if turn % 2 == 1:
        together = ask(server, next(texts), models, tokens)
    return {
        "together": together,
        "one after the other": sum(alone),
        "slowest alone": max(alone),
        "together / one after the other": together / sum(alone),
        "together / slowest alone": together / max(alone),
    }


def command_line(arguments: argparse.Namespace, port: int) -> tuple[list[str], list[str]]:
    """Return the command line of the server, and the names of the five models that answer."""
    options = ["--quantize", arguments.quantize, "--log-level", "warning", *arguments.server_options]
    if arguments.preset == MINI:
        en, sv = "oneseek-mini-en", "oneseek-mini-sv"
        command = [sys.executable, "-m", "server", "serve", "--host", "127.0.0.1", "--port", str(port)]
        command += options
    else:
        en, sv = "en", "sv"
        model, adapters, _ = at_hand(arguments.work, arguments.preset)
        command = oneseek(model, adapters, port, *options)
    return command, ["base", en, sv, f"{sv}=0.7,{en}=0.3", f"{sv}=0.3,{en}=0.7"]


def main(given: Sequence[str] | None = None) -> None:
    """Run the benchmark of several models that answer together: parse the command line, measure, and print
    the result.
    """
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--preset", choices=(MINI, *PRESETS), default=MINI)
    parser.add_argument("--quantize", choices=("none", "int8", "int4"), default="int8")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each answer")
    parser.add_argument("--work", type=Path, default=Path("/tmp/oneseek-bench"))
    parser.add_argument("server_options", nargs="*", help="more flags for oneseek serve, after --")
    arguments = parser.parse_args(given)
    arguments.work.mkdir(parents=True, exist_ok=True)
    port, texts = free_port(), questions()
    command, models = command_line(arguments, port)
    env = {"ONESEEK_HOME": str(arguments.work / "home-voices")}
    rounds: list[dict[str, float]] = []
    with serving(command, port, arguments.work / "voices.log", env) as server:
        measure(server, texts, models, arguments.tokens, 0)
        for turn in range(arguments.rounds):
            rounds.append(measure(server, texts, models, arguments.tokens, turn))
            print(turn + 1, json.dumps(rounds[-1]), file=sys.stderr, flush=True)
    found: dict[str, Any] = {
        name: round(statistics.median(each[name] for each in rounds), 3) for name in rounds[0]
    }
    about = {"bench": "voices", "preset": arguments.preset, "quantize": arguments.quantize}
    about |= {"voices": len(models), "tokens": arguments.tokens, "load": round(os.getloadavg()[0], 1)}
    print(json.dumps({**about, "python": platform.python_version(), **found}))


if __name__ == "__main__":
    main()
