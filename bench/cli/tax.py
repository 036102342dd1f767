"""`oneseek bench tax`: measure what LoRA adapters cost on this machine, as ratios within one run.

    oneseek bench tax --users 16
    oneseek bench tax --states off,idle,mixed --rounds 9
    oneseek bench tax --url http://127.0.0.1:8000 --states idle,one,mixed

A state is a way to serve the same prompts, such as merged weights, idle adapters or mixed adapters. Without
--url, the command starts every server that the states need and measures the states in turn. Each figure is
divided by the figure of the server without adapters, or with --url by the figure of the first state. Each
ratio has a bootstrap interval of 95%. The last line of output is one JSON object.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
from collections.abc import Generator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

from bench.cli.limit import add_limit_flags, limit_of
from bench.cli.options import BenchMistakeError, add_load_flags, count, load_shape, measure_options
from bench.cli.server import ServerChoice, add_start_flags, add_target_flags, opened, start_options
from bench.cli.verb import deliver, guarded
from bench.contenders.adapters import random_adapters
from bench.contenders.launch import StartOptions
from bench.contenders.merged import merged, plain_copy
from bench.contenders.start import started
from bench.figures.compared import RoundFigures, median_of
from bench.figures.intervals import RatioInterval
from bench.limits.reached import RunLimit
from bench.report.document import describe_target, environment
from bench.suite.rounds import SHARE
from bench.suite.tax import (
    BY_NAME,
    REFERENCE,
    STATES,
    THRASH_ADAPTERS,
    THRASH_SLOTS,
    TaxState,
    measure_state,
    taxes,
)
from bench.suite.turns import MeasureRound, take_turns
from bench.target.http import Endpoint
from bench.target.probe import TargetServer, probe

SCHEMA = "oneseek-bench-tax/1"
CONTENDER = "oneseek"
"""The server that is started if no flag names a server."""
SHOWN = ("tokens_per_second", "ttft_p50_ms", "itl_p50_ms")


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `oneseek bench tax`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = ",".join(state.name for state in STATES)
    parser.add_argument(
        "--states",
        help=f"Measure these states, separated by commas. Default: {names}; with --url: idle,one,mixed.",
    )
    parser.add_argument("--rounds", type=count, default=7, help="Number of rounds. Default: 7.")
    parser.add_argument("--out", type=Path, help="Write the result to this file, as JSON.")
    add_limit_flags(parser)
    add_target_flags(parser)
    add_start_flags(parser)
    add_load_flags(parser)
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Start the servers, measure each state, a way to serve adapters, in turn, and print the result. Return
    the exit code.
    """
    return guarded("tax", build_parser(), _tax, given)


def _tax(arguments: argparse.Namespace) -> int:
    if arguments.rate or arguments.trace:
        raise BenchMistakeError(
            "the command tax runs a closed loop and does not take --rate or --trace; use --users instead"
        )
    states, choice = _states(arguments), ServerChoice.read(arguments)
    started_here = "" if choice.url else choice.start or CONTENDER
    limit = limit_of(arguments, choice, started_here)
    with _servers(choice, states) as servers:
        about = environment(choice.python_of(started_here)) | {
            "servers": {name: [describe_target(one) for one in found] for name, found in servers.items()},
            "limit": limit.to_json() if limit else None,
        }
        rounds = asyncio.run(_rounds(arguments, states, servers, limit))
    ratios = taxes(rounds)
    _print(rounds, ratios)
    document = {
        "schema": SCHEMA,
        **about,
        "ratios": {
            state: {name: asdict(ratio) for name, ratio in found.items()} for state, found in ratios.items()
        },
        SHARE: {state: median_of(found, SHARE) for state, found in rounds.items()},
        "rounds": rounds,
    }
    deliver("tax", document, arguments.out)
    return 0


def _states(arguments: argparse.Namespace) -> list[TaxState]:
    every = "idle,one,mixed" if arguments.url else ",".join(BY_NAME)
    names = (arguments.states or every).split(",")
    unknown = [name for name in names if name not in BY_NAME]
    if unknown:
        raise BenchMistakeError(
            f"--states names the unknown server state {unknown[0]!r}; use names of {', '.join(BY_NAME)}"
        )
    others = [name for name in names if BY_NAME[name].server != "lora"]
    if arguments.url and others:
        raise BenchMistakeError(
            f"the server state {others[0]} in --states can be measured only on a server that this command "
            "starts; remove --url"
        )
    if not arguments.url and REFERENCE not in names:
        names.insert(0, REFERENCE)
    return [state for state in STATES if state.name in names]


async def _rounds(
    arguments: argparse.Namespace,
    states: Sequence[TaxState],
    servers: Mapping[str, Sequence[TargetServer]],
    limit: RunLimit | None,
) -> dict[str, list[RoundFigures]]:
    shape, options = load_shape(arguments), measure_options(arguments)

    def one(state: TaxState) -> MeasureRound:
        async def once(turn: int) -> RoundFigures:
            return await measure_state(state, servers[state.server], shape, options, turn, limit)

        return once

    def show(turn: int, name: str, figures: RoundFigures) -> None:
        rate = figures["tokens_per_second"]
        print(f"round {turn + 1}, {name}: {rate:.1f} tokens/s", file=sys.stderr, flush=True)

    return await take_turns({state.name: one(state) for state in states}, arguments.rounds, show)


@contextmanager
def _servers(choice: ServerChoice, states: Sequence[TaxState]) -> Generator[dict[str, list[TargetServer]]]:
    """Run every server that `states`, the ways to serve adapters, need, and stop them when the `with` block
    ends. Yields a map from each kind of server, such as `plain` (no adapters) or `merged` (merged weights),
    to its servers.
    """
    if choice.url:
        with opened(choice) as target:
            yield {"lora": [target.server]}
        return
    name = choice.start or CONTENDER
    options, _ = start_options(choice, name)
    with ExitStack() as stack:
        found: dict[str, list[TargetServer]] = {}
        for kind in dict.fromkeys(state.server for state in states):
            found[kind] = [
                probe(Endpoint(stack.enter_context(started(name, one)).url))
                for one in _options(kind, options)
            ]
        yield found


def _options(kind: str, options: StartOptions) -> list[StartOptions]:
    """Return the start options for the servers of a kind. `lora` serves the adapters, `thrash` has more
    adapters than slots, `plain` has none, `merged` has an adapter merged into the weights, and `pair` is two
    merged servers.
    """
    base, work = options.base, options.work
    if kind == "lora":
        return [replace(options, label="tax-lora")]
    if kind == "thrash":
        many = random_adapters(work / f"random-{base.name}", base, THRASH_ADAPTERS)
        return [replace(options, label="tax-thrash", adapters=many, slots=THRASH_SLOTS)]
    if kind == "plain":
        copy = plain_copy(base, work / "plain" / base.name)
        return [replace(options, label="tax-plain", base=copy, adapters={})]
    if not options.adapters:
        raise BenchMistakeError(
            "--states names a server with an adapter merged into its weights, but no adapter is given; "
            "give --load-adapter NAME=PATH"
        )
    chosen = list(options.adapters.items())[: 2 if kind == "pair" else 1]
    return [
        replace(
            options,
            label=f"tax-{kind}-{name}",
            base=merged(options.python, base, name, path, work / f"merged-{base.name}-{name}"),
            adapters={},
        )
        for name, path in chosen
    ]


def _print(
    rounds: Mapping[str, Sequence[RoundFigures]], ratios: Mapping[str, Mapping[str, RatioInterval]]
) -> None:
    print(
        f"{'state':<14}{'tokens/s':>10}{'of limit':>10}  "
        + "  ".join(f"{name:<26}" for name in SHOWN).rstrip()
    )
    for name, found in rounds.items():
        rate, share = median_of(found, "tokens_per_second") or 0.0, median_of(found, SHARE)
        line = f"{name:<14}{rate:>10.1f}{'-' if share is None else f'{share:.1%}':>10}  "
        if name in ratios:
            own = ratios[name]
            cells = [
                f"{own[key].ratio:.3f} ({own[key].low:.3f} to {own[key].high:.3f})" if key in own else "-"
                for key in SHOWN
            ]
            line += "  ".join(f"{cell:<26}" for cell in cells)
        else:
            line += "1"
        print(line.rstrip())
