"""The engine's thread against a runner whose logits, faults and hangs are written down."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from adapters.lora.weights import AdapterWeights
from server.engines.base import StepObserver
from server.engines.embedded import loop as loop_module
from server.engines.embedded.loop import StepLoop
from server.engines.embedded.outbox import Delivery
from server.engines.embedded.runners.protocol import DecodeRow
from server.engines.embedded.sampling.sampler import Sampler, SamplerState
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.scheduler import Scheduler
from server.engines.embedded.scheduling.step import Sequence as Running
from server.engines.shared.stream import StepEvent
from server.errors import EngineDeadError, EngineError
from server.request import AdapterMix, GenerationRequest, Sampling

VOCABULARY = 16
REFUSED, PANICKING, BROKEN, FATAL, HANGING = 9, 12, 13, 14, 15
"""Tokens at which the runner refuses, panics, returns no numbers, raises, or waits to be let go."""
LIMITS = SchedulerLimits(
    max_num_seqs=4,
    max_num_batched_tokens=32,
    rows=4,
    context=64,
    kv_tokens=256,
    prefill_chunk=32,
    prefix_caching=True,
)


class PanicError(BaseException):
    """As pyo3 has one, which is no `Exception`."""


class WrittenRunner:
    """After token t comes t + 1, up to 9."""

    rows = LIMITS.rows
    vocabulary = VOCABULARY

    def __init__(self) -> None:
        self.refuses: set[int] = set()
        """Tokens that it refuses to compute."""
        self.let_go = threading.Event()
        self.hangs = threading.Event()
        self.closed = False

    def prefill(
        self, row: int, start: int, tokens: Sequence[int], adapter_mix: AdapterMix, outputs: Sequence[int]
    ) -> NDArray[np.float32]:
        if FATAL in tokens:
            raise MemoryError("the device has no memory left")
        if PANICKING in tokens:
            raise PanicError
        if HANGING in tokens:
            self.hangs.set()
            self.let_go.wait(30)
        self._check(tokens)
        return np.stack([_logits(tokens[index]) for index in outputs])

    def decode(self, rows: Sequence[DecodeRow]) -> NDArray[np.float32]:
        self._check([row.token for row in rows])
        return np.stack([_logits(row.token) for row in rows])

    def _check(self, tokens: Sequence[int]) -> None:
        if self.refuses.intersection(tokens):
            raise ValueError("a token is refused")

    def copy(self, source: int, target: int, length: int) -> None: ...

    def release(self, row: int) -> None: ...

    def load(self, digest: str, weights: AdapterWeights) -> None: ...

    def unload(self, digest: str) -> None: ...

    def close(self) -> None:
        self.closed = True


def _logits(token: int) -> NDArray[np.float32]:
    logits = np.zeros(VOCABULARY, np.float32)
    logits[min(token + 1, 9)] = np.nan if token == BROKEN else 10.0
    return logits


class Box:
    """Keeps what is delivered; `wait` returns all of a request's once its last has come."""

    def __init__(self) -> None:
        self.events: dict[str, list[StepEvent | EngineError]] = {}
        self.alive_when_told: list[bool] = []
        self.loop: StepLoop | None = None
        self._news = threading.Condition()

    def deliver(self, batch: Sequence[Delivery]) -> None:
        with self._news:
            for sequence, event in batch:
                self.events.setdefault(sequence.request.request_id, []).append(event)
            self._news.notify_all()

    def on_death(self, error: EngineDeadError) -> None:
        assert self.loop is not None
        with self._news:
            self.alive_when_told.append(self.loop.alive)
            self._news.notify_all()

    def wait(self, request_id: str) -> list[StepEvent | EngineError]:
        def over() -> bool:
            events = self.events.get(request_id, [])
            return any(isinstance(e, EngineError) or e.finish_reason is not None for e in events)

        with self._news:
            assert self._news.wait_for(over, 10), f"{request_id} did not end"
            return self.events[request_id]

    def wait_for_death(self) -> None:
        with self._news:
            assert self._news.wait_for(lambda: bool(self.alive_when_told), 10)


class Driver:
    """A running loop, its runner and its outbox."""

    def __init__(self, observer: StepObserver | None = None) -> None:
        self.runner = WrittenRunner()
        self.box = Box()
        sampler = Sampler(VOCABULARY, frozenset())
        self.loop = StepLoop(Scheduler(LIMITS), self.runner, sampler, self.box, observer, frozenset())
        self.box.loop = self.loop
        self.loop.start()

    def ask(self, name: str, prompt: Sequence[int], prompt_logprobs: int | None = None, **other: Any) -> None:
        settings: dict[str, Any] = {"max_tokens": 3, "temperature": 0.0, **other}
        sampling = Sampling(prompt_logprobs=prompt_logprobs, **settings)
        request = GenerationRequest(request_id=name, prompt=tuple(prompt), sampling=sampling)
        state = SamplerState(sampling, request.prompt, VOCABULARY, frozenset())
        self.loop.add(Running(request, time.perf_counter()), state)

    def hang(self) -> None:
        self.ask("hanging", [HANGING])
        assert self.runner.hangs.wait(10)


@pytest.fixture
def drive() -> Iterator[Callable[..., Driver]]:
    made: list[Driver] = []

    def make(observer: StepObserver | None = None) -> Driver:
        made.append(Driver(observer))
        return made[-1]

    yield make
    for driver in made:
        driver.runner.let_go.set()
        driver.loop.close()


def tokens(events: list[StepEvent | EngineError]) -> list[int | None]:
    return [event.token_id for event in events if isinstance(event, StepEvent)]


def test_a_request_runs_to_its_end(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.ask("a", [1, 2, 3], prompt_logprobs=0)
    events = driver.box.wait("a")
    assert tokens(events) == [4, 5, 6]
    first = events[0]
    assert isinstance(first, StepEvent)
    assert first.prompt_logprobs is not None
    assert [score.token_id for score in first.prompt_logprobs] == [2, 3]


@pytest.mark.parametrize("prompt", [[1, BROKEN, 2], [1, 2, BROKEN]])
@pytest.mark.parametrize("scored", [None, 0])
def test_logits_that_are_no_numbers_end_one_request_alone(
    drive: Callable[..., Driver], prompt: list[int], scored: int | None
) -> None:
    driver = drive()
    driver.hang()
    driver.ask("broken", prompt, prompt_logprobs=scored)
    driver.ask("sound", [5])
    driver.runner.let_go.set()
    *_, last = driver.box.wait("broken")
    # Without prompt_logprobs nobody looks at the logits within the prompt.
    assert isinstance(last, EngineError) == (scored is not None or prompt[-1] == BROKEN)
    assert tokens(driver.box.wait("sound")) == [6, 7, 8]
    assert driver.loop.alive


@pytest.mark.parametrize(
    ("prompt", "settings"),
    [
        ([1], {"max_tokens": LIMITS.context}),  # refused by the scheduler as it is queued
        ([1 << 70, 1], {}),  # not even comparable with what is cached
        ([3, REFUSED], {}),  # refused by the runner in its prompt
        ([REFUSED - 1], {}),  # and in the run that decodes it beside others
        ([1, 2], {"prompt_logprobs": "many"}),  # not to be scored
        ([1], {"top_k": 1 << 70, "temperature": 1.0}),  # not to be sampled
        ([1], {"logprobs": "many"}),
    ],
)
def test_what_fails_for_one_request_alone_fails_it_alone(
    drive: Callable[..., Driver], prompt: list[int], settings: dict[str, Any]
) -> None:
    driver = drive()
    driver.runner.refuses.add(REFUSED)
    driver.hang()
    driver.ask("before", [2], temperature=1e-5, frequency_penalty=0.1)
    driver.ask("faulty", prompt, **settings)
    driver.ask("after", [4])
    driver.runner.let_go.set()
    *_, last = driver.box.wait("faulty")
    assert isinstance(last, EngineError)
    assert tokens(driver.box.wait("before")) == [3, 4, 5]
    assert tokens(driver.box.wait("after")) == [5, 6, 7]
    driver.ask("again", [1, 2])
    assert tokens(driver.box.wait("again")) == [3, 4, 5]
    assert driver.loop.alive
    state = driver.loop.state()
    assert (dict(state.running), dict(state.waiting)) == ({}, {})


def test_a_panic_in_native_code_is_told_as_a_death(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.ask("panicking", [PANICKING])
    driver.box.wait_for_death()
    assert not driver.loop.alive


def test_a_fault_in_counting_ends_nobodys_answer(
    drive: Callable[..., Driver], caplog: pytest.LogCaptureFixture
) -> None:
    class Faulty:
        def step(self, seconds: float, batch: int) -> None:
            raise KeyError("no such label")

    driver = drive(Faulty())
    driver.ask("a", [1])
    assert tokens(driver.box.wait("a")) == [2, 3, 4]
    driver.ask("b", [1])
    driver.box.wait("b")
    assert driver.loop.alive
    assert sum("metrics" in line for line in caplog.messages) == 1


def test_a_call_that_is_cancelled_before_its_turn_does_not_run(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.hang()
    ran: list[str] = []
    dropped = driver.loop.call(lambda _runner, _scheduler: ran.append("dropped"))
    kept = driver.loop.call(lambda _runner, _scheduler: ran.append("kept"))
    assert dropped.cancel()
    driver.runner.let_go.set()
    kept.result(10)
    assert ran == ["kept"]
    driver.ask("a", [1])
    assert tokens(driver.box.wait("a")) == [2, 3, 4]


def test_a_death_is_told_after_the_last_newcomer_was_let_in(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.hang()
    driver.ask("fatal", [FATAL])
    driver.runner.let_go.set()
    driver.box.wait_for_death()
    assert driver.box.alive_when_told == [False]
    state = driver.loop.state()
    assert (state.alive, dict(state.running), dict(state.waiting)) == (False, {}, {})


def test_calls_that_a_dead_engine_did_not_reach_are_answered(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.hang()
    driver.ask("fatal", [FATAL])
    answers: list[Future[None]] = []

    def call_once_more() -> None:
        answers.append(driver.loop.call(lambda _runner, _scheduler: None))

    driver.loop.call(lambda _runner, _scheduler: call_once_more()).add_done_callback(
        lambda _: call_once_more()
    )
    driver.runner.let_go.set()
    driver.box.wait_for_death()
    call_once_more()
    with pytest.raises(EngineDeadError):
        answers[-1].result(10)
    for answer in answers:
        answer.exception(10)
    driver.loop.close()
    assert driver.runner.closed


def test_a_first_step_that_hangs_shows_in_progress_and_readiness(drive: Callable[..., Driver]) -> None:
    driver = drive()
    assert driver.loop.state().progress < 5
    driver.hang()
    time.sleep(0.05)
    state = driver.loop.state()
    assert state.progress >= 0.05
    assert state.ready
    driver.runner.let_go.set()
    driver.box.wait("hanging")


def test_work_between_steps_that_hangs_shows_in_progress(drive: Callable[..., Driver]) -> None:
    driver = drive()
    driver.loop.call(lambda _runner, _scheduler: driver.runner.let_go.wait(10))
    time.sleep(0.05)
    assert driver.loop.state().progress > 0
    driver.runner.let_go.set()


def test_closing_leaves_a_step_that_hangs(
    drive: Callable[..., Driver], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop_module, "CLOSE_SECONDS", 0.05)
    driver = drive()
    driver.hang()
    driver.loop.close()
    assert not driver.runner.closed
