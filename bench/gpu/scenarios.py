"""The scenarios of a GPU benchmark, their order, and an estimate of their time.

Each scenario names the way in which its server must be started: `base` (without LoRA), `lora`, or `thrash`
(fewer adapter slots than adapters). All servers are measured with one way before the next way begins, so that
a run that stops early can still compare the servers.
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from bench.gpu.models import ADAPTERS
from bench.limits.devices import GpuSpec
from bench.limits.roofline import Model, decode_step, prefill
from bench.load.closed_loop import LoadRequest
from bench.load.steady import LEAST_ROUNDS

SWAPPED = "swapped"
"""Name under which the scenario `swap` serves the two adapters in `VERSIONS`, one after the other."""
SLOTS = {"base": 0, "lora": 9, "thrash": 4}
"""Maps each way to start a server to the number of adapters that fit on the GPU at once. 0 starts a server
without LoRA. 9 leaves a slot free beside the eight adapters, which is needed to exchange a version.
"""
ROUNDS = {1: 10, 16: 6, 64: 5}
"""Maps the number of concurrent streams to the number of requests that each stream should send. With more
streams than listed, each sends `ROUNDS_OF_MANY`.
"""
ROUNDS_OF_MANY = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """A scenario: how the server is started, and which adapters its requests name."""

    name: str
    start: str
    adapters: int
    """Number of adapters that the requests use in turn, from the beginning of `ADAPTERS`. 0: requests use the
    base.
    """
    says: str
    swaps: bool = False
    """True if the adapter `SWAPPED` is exchanged for another version when half of the requests have been
    sent.
    """

    @property
    def names(self) -> tuple[str, ...]:
        """Values of the requests' field `model`, which are used in turn."""
        if self.swaps:
            return (*ADAPTERS[: self.adapters - 1], SWAPPED)
        return ADAPTERS[: self.adapters] or ("base",)


SCENARIOS = (
    Scenario("base", "base", 0, "a server without LoRA"),
    Scenario("idle", "lora", 0, "LoRA enabled, but no request uses an adapter"),
    Scenario("one", "lora", 1, "every request uses the same adapter"),
    Scenario("two", "lora", 2, "two adapters, half and half"),
    Scenario("eight", "lora", 8, "eight adapters in turn"),
    Scenario(
        "swap", "lora", 8, "eight adapters in turn, one exchanged for another version halfway", swaps=True
    ),
    Scenario("thrash", "thrash", 8, "eight adapters in turn, four slots"),
)
BY_NAME = {scenario.name: scenario for scenario in SCENARIOS}
STEADY = tuple(scenario.name for scenario in SCENARIOS if not scenario.swaps)
"""Names of the scenarios that run by default: those in which no adapter is exchanged during the run."""


@dataclass(frozen=True, slots=True)
class Point:
    """A measuring point: a server, a scenario, and a number of concurrent streams."""

    server: str
    scenario: str
    streams: int

    def __str__(self) -> str:
        return f"{self.server} {self.scenario} {self.streams}"

    @property
    def start(self) -> tuple[str, str]:
        """Name of the server, and the way in which it must be started for this measuring point: `base`,
        `lora` or `thrash`.
        """
        return self.server, BY_NAME[self.scenario].start


@dataclass(frozen=True, slots=True)
class Length:
    """Number of prompt tokens and answer tokens, the same for every request."""

    prompt: int = 512
    tokens: int = 128


def points(servers: Sequence[str], scenarios: Sequence[str], streams: Sequence[int]) -> list[Point]:
    """Return all measuring points in the order in which they are measured. Raises `ValueError` for an unknown
    scenario.
    """
    for name in scenarios:
        if name not in BY_NAME:
            raise ValueError(f"the scenario {name!r} is unknown; use one of {', '.join(BY_NAME)}")
    chosen = [scenario for scenario in SCENARIOS if scenario.name in scenarios]
    return [
        Point(server, scenario.name, number)
        for start in SLOTS
        for server in servers
        for scenario in chosen
        if scenario.start == start
        for number in sorted(streams)
    ]


def wanted_rounds(streams: int) -> int:
    """Return how many requests each of `streams` concurrent streams should send, so that the steady state is
    long enough.
    """
    return next((rounds for most, rounds in sorted(ROUNDS.items()) if streams <= most), ROUNDS_OF_MANY)


def jobs(point: Point, rounds: int, length: Length, vocabulary: int) -> list[LoadRequest]:
    """Return completion requests of random token ids for a measuring point, `rounds` for each stream.

    All prompts differ, so that none is found in a prefix cache. All servers get the same prompts for the same
    scenario and number of streams; every other combination has prompts of its own.
    """
    return _jobs(f"{point.scenario}/{point.streams}", point, rounds * point.streams, length, vocabulary)


def warm_up(point: Point, length: Length, vocabulary: int) -> list[LoadRequest]:
    """Return the warm-up requests of a scenario, with short answers. Every adapter gets at least two."""
    names = len(BY_NAME[point.scenario].names)
    count = max(2 * names, min(64, point.streams))
    short = Length(length.prompt, min(16, length.tokens))
    return _jobs(f"{point.scenario}/{point.streams}/warm", point, count, short, vocabulary)


def _jobs(seed: str, point: Point, count: int, length: Length, vocabulary: int) -> list[LoadRequest]:
    random = np.random.default_rng(zlib.crc32(seed.encode()))
    names = BY_NAME[point.scenario].names
    prompts = random.integers(10, vocabulary - 10, (count, length.prompt)).tolist()
    return [
        LoadRequest(
            "/v1/completions",
            {
                "model": names[number % len(names)],
                "prompt": prompt,
                "max_tokens": length.tokens,
                "temperature": 0,
                "ignore_eos": True,
            },
            length.tokens,
        )
        for number, prompt in enumerate(prompts)
    ]


def expected_seconds(
    point: Point, rounds: int, length: Length, model: Model, device: GpuSpec, share: float
) -> float:
    """Estimate the seconds of `rounds` requests per stream at a measuring point: prefill and decode steps one
    after another at `share` of the device's limit, plus 1.5 ms per step for kernel launches; at least 0.1 ms
    per token for HTTP.
    """
    streams = point.streams
    compute = streams * prefill(model, length.prompt).seconds(device)
    compute += length.tokens * decode_step(model, streams, length.prompt + length.tokens).seconds(device)
    http = 1e-4 * streams * length.tokens
    return rounds * max(compute / share + 1.5e-3 * length.tokens, http)


def trim(seconds: Mapping[Point, float], rounds: Mapping[Point, int], left: float) -> dict[Point, int]:
    """Reduce `rounds`, the requests per stream of each measuring point, until all points take at most `left`
    seconds, but not below the minimum for a steady state.

    `seconds` maps each point to the expected seconds of one request per stream. Again and again, take the
    number of concurrent streams whose points need the most time in total, and remove one request per stream
    from each of these points.
    """
    kept = dict(rounds)
    while sum(seconds[point] * number for point, number in kept.items()) > left:
        costs: dict[int, float] = {}
        for point, number in kept.items():
            if number > LEAST_ROUNDS:
                costs[point.streams] = costs.get(point.streams, 0.0) + seconds[point] * number
        if not costs:
            break
        longest = max(costs, key=lambda streams: costs[streams])
        for point, number in kept.items():
            if point.streams == longest:
                kept[point] = max(LEAST_ROUNDS, number - 1)
    return kept
