"""Choose the hardware limit that a measured token rate is compared with, from the flags or from this
machine.
"""

from __future__ import annotations

import argparse

from bench.cli.options import BenchMistakeError
from bench.cli.server import ServerChoice
from bench.host import find_gpu
from bench.limits.bases import PACKED
from bench.limits.reached import RunLimit, machine, machine_at_hand

FLOAT32 = ("oneseek",)
"""Servers under test that keep weights in float32 on the CPU. For all other servers, 2 bytes per weight are
assumed.
"""


def add_limit_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags that choose the device whose theoretical limit a result is compared with."""
    add = parser.add_argument_group("comparison with the device's theoretical limit").add_argument
    add(
        "--limit-tokens-per-second",
        type=float,
        help="Compare results with this maximum rate, in tokens per second.",
    )
    add(
        "--limit-device", metavar="NAME",
        help="Compare results with the theoretical maximum of this device; see `oneseek bench limits`. "
        "Default: this machine, if the suite starts the server.",
    )  # fmt: skip
    add(
        "--limit-base",
        metavar="BASE",
        help="Base that the theoretical maximum is for. Default: --base-model.",
    )
    add(
        "--limit-quantize",
        choices=tuple(PACKED),
        default="none",
        help="Quantization of the base's weights, for its theoretical maximum. Default: none.",
    )


def limit_of(given: argparse.Namespace, choice: ServerChoice, contender: str) -> RunLimit | None:
    """Return the theoretical limit that a server's results are compared with: a device with its base, or the
    rate of --limit-tokens-per-second. None if the device or the base is unknown.

    `contender` names the server that the benchmark starts; it is empty for a server that is already running.
    Raises `BenchMistakeError` if flags contradict each other, and `ValueError` if a device or a base has an
    unknown name.
    """
    rate, device = given.limit_tokens_per_second, given.limit_device
    base = given.limit_base or str(choice.base)
    width = 4 if contender in FLOAT32 else 2
    if rate is not None:
        if device or rate <= 0:
            raise BenchMistakeError(
                "--limit-tokens-per-second must be above 0 and cannot be combined with --limit-device; "
                "change or remove one of them"
            )
        return RunLimit(given=rate)
    if device:
        if not contender and not given.limit_base:
            raise BenchMistakeError(
                "--limit-device needs the base that the running server has; give it with --limit-base"
            )
        return RunLimit(machine(device, base, given.limit_quantize, width))
    found = machine_at_hand(find_gpu(), base, given.limit_quantize, width) if contender else None
    return RunLimit(found) if found else None
