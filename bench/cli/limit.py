"""Chooses the device whose limit a report is compared with, from the flags or the machine."""

from __future__ import annotations

import argparse

from bench.cli.options import BenchMistakeError
from bench.cli.server import ServerChoice
from bench.host import find_gpu
from bench.limits.bases import PACKED
from bench.limits.reached import RunLimit, machine, machine_at_hand

FLOAT32 = ("oneseek",)
"""Contenders that hold weights in float32 on the CPU. For all others, 2 bytes per weight are assumed."""


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that name the device whose limit a result is compared with."""
    add = parser.add_argument_group("distance from the limit").add_argument
    add(
        "--limit-tokens-per-second", type=float, help="Compare results with this highest rate of the machine."
    )
    add(
        "--limit-device", metavar="NAME",
        help="Compare results with this device's limit; see `oneseek bench limits`. "
        "Default: this machine, if the suite starts the server.",
    )  # fmt: skip
    add("--limit-base", metavar="BASE", help="Base that the server runs. Default: --base-model.")
    add(
        "--limit-quantize",
        choices=tuple(PACKED),
        default="none",
        help="Weight format of that base. Default: none.",
    )


def limit_of(given: argparse.Namespace, choice: ServerChoice, contender: str) -> RunLimit | None:
    """Return the device and base that a server's results are compared with; None if they are unknown.

    `contender` is what the suite starts, empty for a server that runs already. Raises `BenchMistakeError` for
    flags that contradict each other, `ValueError` for a name that is not known.
    """
    rate, device = given.limit_tokens_per_second, given.limit_device
    base = given.limit_base or str(choice.base)
    width = 4 if contender in FLOAT32 else 2
    if rate is not None:
        if device or rate <= 0:
            raise BenchMistakeError(
                "--limit-tokens-per-second must be above 0 and cannot be combined with --limit-device"
            )
        return RunLimit(given=rate)
    if device:
        if not contender and not given.limit_base:
            raise BenchMistakeError("--limit-device needs the model that the server runs: give --limit-base")
        return RunLimit(machine(device, base, given.limit_quantize, width))
    found = machine_at_hand(find_gpu(), base, given.limit_quantize, width) if contender else None
    return RunLimit(found) if found else None
