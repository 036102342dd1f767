"""Lists the scenarios of a run on a GPU, their order, and how long each should take.

A server is started once for each `Start`; every scenario names the start that it runs on. Points come in the
order base, LoRA, thrash, in each of them one server after the other, so that a run cut short still compares.
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
"""The name under which `swap` serves the `VERSIONS` in turn."""
SLOTS = {"base": 0, "lora": 9, "thrash": 4}
"""Maps each way to start the server to the number of adapters that fit on the GPU at once. 0 is a server
without LoRA. Nine is enough for eight adapters and a spare slot, which is used to swap versions."""
ROUNDS = {1: 10, 16: 6, 64: 5}
"""Maps the number of concurrent streams to the number of requests that each stream should send. More streams
send `ROUNDS_OF_MANY` each.
"""
ROUNDS_OF_MANY = 4


@dataclass(frozen=True, slots=True)
class Scenario:
    """Which adapters the requests of a scenario name."""

    name: str
    start: str
    adapters: int
    """Number of adapters that the requests use in turn, from the first of `ADAPTERS`. 0 uses the base."""
    says: str
    swaps: bool = False
    """True if the adapter `SWAPPED` is exchanged for another version halfway through the run."""

    @property
    def names(self) -> tuple[str, ...]:
        """Values for the requests' field `model`, used in turn."""
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
"""Names of the scenarios that run by default."""


@dataclass(frozen=True, slots=True)
class Point:
    """One measuring point: a server, a scenario, and a number of streams."""

    server: str
    scenario: str
    streams: int

    def __str__(self) -> str:
        return f"{self.server} {self.scenario} {self.streams}"

    @property
    def start(self) -> tuple[str, str]:
        """The server, and how it must be started for this point."""
        return self.server, BY_NAME[self.scenario].start


@dataclass(frozen=True, slots=True)
class Length:
    """Number of tokens in a prompt and in its answer, the same for every request."""

    prompt: int = 512
    tokens: int = 128


def points(servers: Sequence[str], scenarios: Sequence[str], streams: Sequence[int]) -> list[Point]:
    """Return every measuring point in the order of the run."""
    for name in scenarios:
        if name not in BY_NAME:
            raise ValueError(f"scenario {name!r} is unknown; use one of {', '.join(BY_NAME)}")
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
    """Return the requests per stream that give a long enough steady state."""
    return next((rounds for most, rounds in sorted(ROUNDS.items()) if streams <= most), ROUNDS_OF_MANY)


def jobs(point: Point, rounds: int, length: Length, vocabulary: int) -> list[LoadRequest]:
    """Completions of random token ids, none alike, so that no prefix is found in a cache.

    Both servers get the same prompts for a point; no two points share one.
    """
    return _jobs(f"{point.scenario}/{point.streams}", point, rounds * point.streams, length, vocabulary)


def warm_up(point: Point, length: Length, vocabulary: int) -> list[LoadRequest]:
    """Return the warm-up requests of a scenario: every adapter once, with short answers."""
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
    """A guess at a point's time: prompts and decode steps in turn at `share` of the device's limit, 1.5 ms of
    launches a step and 0.1 ms of HTTP a token."""
    streams = point.streams
    compute = streams * prefill(model, length.prompt).seconds(device)
    compute += length.tokens * decode_step(model, streams, length.prompt + length.tokens).seconds(device)
    http = 1e-4 * streams * length.tokens
    return rounds * max(compute / share + 1.5e-3 * length.tokens, http)


def trim(seconds: Mapping[Point, float], rounds: Mapping[Point, int], left: float) -> dict[Point, int]:
    """Fewer rounds where all would take more than `left` seconds; never fewer than a window needs.

    `seconds` holds those of one round of each point. The number of streams that takes longest loses a round
    first, at all its points alike.
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
