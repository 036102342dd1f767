"""Simulate a server of a fleet: continuous batching with chunked prefill, adapter slots, and a
prefix cache.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from typing import Any

import simpy

from bench.scale.times import StepTimes
from bench.scale.workload import FleetRequest


@dataclass(frozen=True, slots=True)
class ReplicaLimits:
    """The limits of a simulated server: its batch, its adapter slots and its prefix cache."""

    max_num_seqs: int = 32
    max_num_batched_tokens: int = 512
    """Maximum number of prompt and decode tokens in an engine step. The default is that of OneSeek's embedded
    engine.
    """
    slots: int = 8
    """Number of adapters that the server can hold at once."""
    cached_tokens: int = 32768
    """Number of tokens of earlier conversation turns that the prefix cache can hold."""

    def __post_init__(self) -> None:
        for name in ("max_num_seqs", "max_num_batched_tokens", "slots"):
            if getattr(self, name) < 1:
                raise ValueError(
                    f"{name} {getattr(self, name)} of a simulated server is too small; use at least 1"
                )


@dataclass(slots=True)
class FleetProgress:
    """A request that a simulated server works on, with what has been computed so far."""

    request: FleetRequest
    replica: int
    prefill_left: int = 0
    made: int = 0
    first: float = -1.0
    """Simulated time of the request's first token, in seconds. -1 before."""
    end: float = -1.0
    """Simulated time of the request's last token, in seconds. -1 before."""
    cold: bool = False
    """True if the server had to load the request's adapter first."""
    cached: int = 0
    """Number of the request's prompt tokens that were in the prefix cache."""


class Replica:
    """A simulated server, which accepts requests and computes them in engine steps."""

    def __init__(
        self,
        env: simpy.Environment,
        number: int,
        times: StepTimes,
        limits: ReplicaLimits,
        on_end: Callable[[FleetProgress], None],
    ) -> None:
        self.number, self.load, self.draining = number, 0, False
        self._env, self._times, self._limits, self._on_end = env, times, limits, on_end
        self._waiting: deque[FleetProgress] = deque()
        self._running: list[FleetProgress] = []
        self._adapters: OrderedDict[int, float] = OrderedDict()
        """Maps each adapter to when it can be used, least recently used first."""
        self._sessions: OrderedDict[int, int] = OrderedDict()
        self._held = 0
        self._work = env.event()
        env.process(self._steps())

    def submit(self, request: FleetRequest) -> FleetProgress:
        """Accept a request that arrives at the current simulated time. Return its progress, which the
        simulation updates.
        """
        progress = FleetProgress(request, self.number)
        self.load += 1
        self._env.process(self._arrive(progress))
        return progress

    def _arrive(self, progress: FleetProgress) -> Generator[Any, Any, None]:
        yield self._env.timeout(self._times.overhead + self._adapter_wait(progress))
        request = progress.request
        progress.cached = min(request.history_tokens, self._sessions.get(request.session, 0))
        progress.prefill_left = max(1, request.prompt_tokens - progress.cached)
        self._waiting.append(progress)
        if not self._work.triggered:
            self._work.succeed()

    def _adapter_wait(self, progress: FleetProgress) -> float:
        adapter, now = progress.request.adapter, self._env.now
        ready = self._adapters.pop(adapter, None)
        if ready is None:
            progress.cold = True
            ready = now + self._times.load
            while len(self._adapters) >= self._limits.slots:
                self._adapters.popitem(last=False)
        self._adapters[adapter] = ready
        return max(0.0, ready - now)

    def _steps(self) -> Generator[Any, Any, None]:
        while True:
            if not self._waiting and not self._running:
                self._work = self._env.event()
                yield self._work
            while self._waiting and len(self._running) < self._limits.max_num_seqs:
                self._running.append(self._waiting.popleft())
            decoding = [one for one in self._running if not one.prefill_left]
            chunks = self._chunks(self._limits.max_num_batched_tokens - len(decoding))
            tokens = sum(length for _, length in chunks)
            yield self._env.timeout(self._times.step(len(decoding), len(chunks), tokens))
            self._count(decoding, chunks)

    def _chunks(self, budget: int) -> list[tuple[FleetProgress, int]]:
        """Choose the requests whose prompts are computed further in the next step, in order of arrival.
        Return each with its number of prompt tokens in this step, at most `budget` in total.
        """
        found: list[tuple[FleetProgress, int]] = []
        for one in self._running:
            if one.prefill_left and budget > 0:
                length = min(one.prefill_left, budget)
                budget -= length
                found.append((one, length))
        return found

    def _count(self, decoding: list[FleetProgress], chunks: list[tuple[FleetProgress, int]]) -> None:
        now = self._env.now
        for one, length in chunks:
            one.prefill_left -= length
            if not one.prefill_left:
                one.first, one.made = now, 1
        for one in decoding:
            one.made += 1
        ended = [one for one in self._running if one.made >= one.request.answer_tokens]
        if ended:
            self._running = [one for one in self._running if one.made < one.request.answer_tokens]
        for one in ended:
            one.end = now
            self.load -= 1
            self._keep(one.request)
            self._on_end(one)

    def _keep(self, request: FleetRequest) -> None:
        if not request.session:
            return
        self._held -= self._sessions.pop(request.session, 0)
        tokens = request.prompt_tokens + request.answer_tokens
        self._sessions[request.session] = tokens
        self._held += tokens
        while self._held > self._limits.cached_tokens and self._sessions:
            self._held -= self._sessions.popitem(last=False)[1]


@dataclass(slots=True)
class SimulatedFleet:
    """The simulated servers that accept requests."""

    replicas: list[Replica] = field(default_factory=list[Replica])
    version: int = 0
    """Number that increases whenever a simulated server is added or removed."""
