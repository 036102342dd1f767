"""`oneseek bench limits`: compute the theoretical limits of each device for serving a base with adapters.

    oneseek bench limits --base mistral-7b --adapters 2 --rank 16
    oneseek bench limits --gpu h100 --gpu l4 --price h100=2.5 --price l4=0.7 --streams 256
    oneseek bench limits --gpu cpu --base models/my-base --quantize int4

The figures are the shortest possible times and the highest possible rates. They follow from the bytes and
operations that the model needs, and no server reaches them. The figures of GPUs come from their datasheets;
the CPU of this machine is measured. The last line of standard output is one JSON object.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from bench.limits.bases import BASES, PACKED, find_base, packed
from bench.limits.cpu import measure_cpu
from bench.limits.devices import TABLE_VERSION, TARGETED, GpuSpec, targeted
from bench.limits.serving import PEFT_TARGETS, ServingLimit, ServingLoad, serving_limit

CPU, ALL = "cpu", "all"
WIDTHS = {CPU: 4}
"""Maps a device to the bytes of an unquantized weight, if they are not 2. The CPU uses 4 (float32)."""


@dataclass(frozen=True, slots=True)
class LimitRow:
    """A row of the printed table: the limits of a device with a weight format."""

    key: str
    device: GpuSpec
    quantize: str
    limit: ServingLimit
    price: float | None

    @property
    def cost(self) -> float | None:
        """Cost of a million answer tokens. None if no price is given, or if the base does not fit
        the device.
        """
        return None if self.price is None else self.limit.cost_per_million(self.price)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of `oneseek bench limits`."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add, load = parser.add_argument, ServingLoad()
    add(
        "--gpu",
        action="append",
        default=[],
        metavar="NAME",
        help=f"Device to compute: {', '.join(TARGETED)}, cpu (this one's) or all. Repeatable. Default: all.",
    )
    add(
        "--base",
        default="mistral-7b",
        help=f"Base: {', '.join(BASES)}, or a folder with a config.json. Default: mistral-7b.",
    )
    add(
        "--quantize",
        action="append",
        default=[],
        choices=tuple(PACKED),
        help="Quantization of the base's weights. Repeatable. Default: each of them.",
    )
    add(
        "--adapters",
        type=int,
        default=load.adapters,
        help=f"Number of adapters in use at once. Default: {load.adapters}.",
    )
    add("--rank", type=int, default=load.rank, help=f"Rank of the adapters. Default: {load.rank}.")
    add(
        "--targets",
        default=",".join(PEFT_TARGETS),
        help="Target modules of the adapters, separated by commas. Default: PEFT's default for the base.",
    )
    add(
        "--streams",
        type=int,
        default=load.streams,
        help=f"Number of concurrent conversations. Default: {load.streams}.",
    )
    add(
        "--prompt",
        type=int,
        default=load.prompt,
        help=f"Length of a prompt in tokens. Default: {load.prompt}.",
    )
    add(
        "--answer",
        type=int,
        default=load.answer,
        help=f"Length of an answer in tokens. Default: {load.answer}.",
    )
    add(
        "--price",
        action="append",
        default=[],
        metavar="NAME=PRICE",
        help="Price of a device per hour, such as h100=2.5. Repeatable.",
    )
    return parser


def main(given: Sequence[str] | None = None) -> int:
    """Compute and print the limits. Return the exit code: 0, or 2 for a mistake in the command."""
    arguments = build_parser().parse_args(given)
    try:
        rows, load = compute(arguments)
    except ValueError as error:
        print(f"oneseek bench limits: {error}", file=sys.stderr)
        return 2
    print("\n".join(lines(arguments.base, load, rows)))
    print(json.dumps({"bench": "limits", "table": TABLE_VERSION, "base": arguments.base, "load": asdict(load),
                      "limits": [to_json(row) for row in rows]}))  # fmt: skip
    return 0


def compute(arguments: argparse.Namespace) -> tuple[list[LimitRow], ServingLoad]:
    """Compute the limits of every device with every weight format. Raises `ValueError` if a flag has a
    mistake; the message names it.
    """
    load = ServingLoad(
        arguments.streams, arguments.prompt, arguments.answer, arguments.adapters, arguments.rank,
        tuple(arguments.targets.split(",")),
    )  # fmt: skip
    base, keys = find_base(arguments.base), _keys(arguments.gpu)
    prices = _prices(arguments.price, keys)
    devices = {key: measure_cpu() if key == CPU else targeted(key) for key in keys}
    rows = [
        LimitRow(
            key, device, name,
            serving_limit(packed(base, name, WIDTHS.get(key, 2)), device, load),
            prices.get(key),
        )
        for key, device in devices.items()
        for name in arguments.quantize or PACKED
    ]  # fmt: skip
    return rows, load


def _keys(named: Sequence[str]) -> list[str]:
    keys = [*TARGETED, CPU] if not named or ALL in named else list(dict.fromkeys(named))
    for key in keys:
        if key != CPU:
            targeted(key)
    return keys


def _prices(entries: Sequence[str], keys: Sequence[str]) -> dict[str, float]:
    found: dict[str, float] = {}
    for entry in entries:
        name, _, value = entry.partition("=")
        try:
            price = float(value)
        except ValueError:
            price = 0.0
        if name not in keys or not 0 < price < float("inf"):
            raise ValueError(
                f"--price {entry!r} is invalid; use DEVICE=PRICE with a price above 0 and a device of "
                f"{', '.join(keys)}"
            )
        found[name] = price
    return found


def lines(base: str, load: ServingLoad, rows: Sequence[LimitRow]) -> list[str]:
    """Return the table of limits as lines of text."""
    title = (
        f"{base}, {load.adapters} adapters of rank {load.rank}, {load.prompt} tokens in and {load.answer} out"
    )
    names = f"{'device':<16}{'weights':<9}{'GB':>6}{'fit':>7}{'streams':>9}  {'binds':<11}"
    names += f"{'first ms':>9}{'step 1':>8}{'step ms':>9}{'decode/s':>10}{'tokens/s':>10}{'per 1M':>9}"
    return [
        title,
        "theoretical limits (shortest times, highest rates), which no server reaches",
        names,
        *map(_line, rows),
    ]


def _line(row: LimitRow) -> str:
    limit = row.limit
    start = f"{row.device.name.removesuffix(' SXM'):<16}{row.quantize:<9}{limit.resident_bytes / 1e9:>6.1f}"
    if not limit.conversations:
        return start + f"{0:>7}   does not fit {row.device.memory:.0f} GB"
    cost = "-" if row.cost is None else f"{row.cost:.3f}"
    times = f"{limit.first_token_seconds * 1e3:>9.1f}{limit.one_step_seconds * 1e3:>8.2f}"
    times += f"{limit.step_seconds * 1e3:>9.2f}"
    rates = f"{limit.decode_tokens_per_second:>10,.0f}{limit.tokens_per_second:>10,.0f}"
    return start + f"{limit.conversations:>7,}{limit.streams:>9,}  {limit.binds:<11}{times}{rates}{cost:>9}"


def to_json(row: LimitRow) -> Mapping[str, Any]:
    """Return a row of the table as JSON. Times are in seconds, sizes in bytes; the device's rates are in GB/s
    and TFLOP/s.
    """
    return {
        "device": row.key,
        "name": row.device.name,
        "bandwidth": round(row.device.bandwidth, 1),
        "tflops": round(row.device.tflops, 3),
        "memory": round(row.device.memory, 1),
        "source": row.device.source,
        "quantize": row.quantize,
        **asdict(row.limit),
        "price_per_hour": row.price,
        "cost_per_million_tokens": row.cost,
    }


if __name__ == "__main__":
    sys.exit(main())
