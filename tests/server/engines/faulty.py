"""A real engine on a runner that raises or hangs on command, and the counts of what a supervisor saw."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights, ModelShape
from server.engines.embedded.engine import EmbeddedEngine
from server.engines.embedded.model.cache import BuiltGraph
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.runners.protocol import DecodeRow
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.errors import EngineError
from server.request import AdapterMix
from server.text.tokenizer import Tokenizer
from tests.server.engines.making import BASE_DIGEST

LIMITS = SchedulerLimits(
    max_num_seqs=8, max_num_batched_tokens=64, rows=8, context=256, kv_tokens=8 * 256, prefill_chunk=64
)
WAIT = 10.0


class FaultyRunner:
    """A real runner that raises or hangs while it is told to."""

    def __init__(self, runner: CpuRunner, fault: Callable[[], None]) -> None:
        self._runner = runner
        self._fault = fault
        self.rows, self.vocabulary = runner.rows, runner.vocabulary
        self.copy, self.release = runner.copy, runner.release
        self.unload, self.close = runner.unload, runner.close

    def load(self, digest: str, weights: AdapterWeights) -> None:
        self._runner.load(digest, weights)

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        self._fault()
        return self._runner.prefill(row, start, tokens, adapter_mix, outputs)

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        self._fault()
        return self._runner.decode(rows)


class Machine:
    """What the engines of a test run on, and what was counted of them."""

    def __init__(self, base: Path, graph: BuiltGraph) -> None:
        self._base = base
        self._graph = graph
        self.faults: list[Callable[[], None]] = []
        """Each strikes one step."""
        self.refuses_to_open = 0
        self.opened = 0
        self.failures = Counter[str]()
        self.restarts = Counter[str]()
        self.let_go = threading.Event()
        self.runners: list[CpuRunner] = []
        """All that were opened."""

    def open(self) -> EmbeddedEngine:
        self.opened += 1
        if self.opened > 1 and self.refuses_to_open:
            self.refuses_to_open -= 1
            raise EngineError("there is no memory for it")
        return EmbeddedEngine(
            open_runner=self._open_runner,
            shape=ModelShape.read(self._base),
            limits=LIMITS,
            tokenizer=Tokenizer.load(self._base),
            base_digest=BASE_DIGEST,
            vocabulary=self._graph.config.vocabulary,
            max_queue=16,
            max_adapters=4,
        )

    def _open_runner(self) -> FaultyRunner:
        self.runners.append(CpuRunner(self._graph, LIMITS.rows, LIMITS.context, 1))
        return FaultyRunner(self.runners[-1], self.strike)

    def strike(self) -> None:
        if self.faults:
            self.faults.pop()()

    def hang(self) -> None:
        self.let_go.wait(WAIT)

    def failed(self, failure: str) -> None:
        self.failures[failure] += 1

    def restarted(self, outcome: str) -> None:
        self.restarts[outcome] += 1


def raise_in_step() -> None:
    raise MemoryError("the device has no memory left")
