"""The embedded engine's thread: plans a step, runs the graph, samples tokens, delivers them, and so on.

The thread owns the scheduler, the runner and the sampler; no other thread uses them. Other threads send calls
to an inbox; after each step, its events are delivered in one batch.
"""

from __future__ import annotations

import dataclasses
import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from server.engines.base import StepObserver
from server.engines.embedded.outbox import Delivery, Outbox
from server.engines.embedded.runners.protocol import DecodeRow, Runner
from server.engines.embedded.sampling.sampler import (
    BadLogitsError,
    BadRowsError,
    SampledToken,
    Sampler,
    SamplerState,
)
from server.engines.embedded.scheduling.scheduler import Scheduler
from server.engines.embedded.scheduling.step import Chunk, Step
from server.engines.embedded.scheduling.step import Sequence as Running
from server.engines.shared.stream import StepEvent
from server.errors import EngineDeadError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import EngineState
from server.request import FinishReason, TokenLogprob

logger = logging.getLogger(__name__)
Result = TypeVar("Result")
CLOSE_SECONDS = 30.0
"""Seconds that `StepLoop.close` waits for the current step to end."""


def _own_fault(sequence: Running, error: Exception) -> EngineError:
    """Return the error for one failed request, and log the details. Other requests continue."""
    if isinstance(error, EngineError):
        return error
    logger.error(
        "request %s failed with an unexpected error inside the engine; other requests continue",
        sequence.request.request_id,
        exc_info=error,
    )
    return EngineError("the engine failed during this request; the server's log has the reason")


class StepLoop:
    """Runs engine steps in a thread while there are requests, and sleeps while there are none."""

    def __init__(
        self,
        scheduler: Scheduler,
        runner: Runner,
        sampler: Sampler,
        outbox: Outbox,
        observer: StepObserver | None,
        eos_ids: frozenset[int],
    ) -> None:
        self._scheduler = scheduler
        self._runner = runner
        self._sampler = sampler
        self._outbox = outbox
        self._observer = observer
        self._eos_ids = eos_ids
        self._states: dict[str, SamplerState] = {}
        self._prompt_scores: dict[str, list[TokenLogprob]] = {}
        self._inbox: deque[Callable[[], None]] = deque()
        self._wake = threading.Event()
        self._gate = threading.Lock()
        self._closing = self._abandoned = False
        self._alive = False
        self._busy_since: float | None = None
        self._slowest_step = 0.0
        self._snapshot = EngineState(alive=False, progress=0.0)
        self._thread = threading.Thread(target=self._main, name="oneseek-engine", daemon=True)

    # Called from any thread.

    def start(self) -> None:
        """Start the engine's thread."""
        self._alive = True
        self._publish()
        self._thread.start()

    def add(self, sequence: Running, state: SamplerState) -> None:
        """Queue a request for the next step. Its tokens and errors go to the outbox."""

        def admit() -> None:
            if not self._alive:
                return
            try:
                self._scheduler.add(sequence)
            except Exception as error:
                self._outbox.deliver([(sequence, _own_fault(sequence, error))])
            else:
                self._states[sequence.request.request_id] = state

        self._post(admit)

    def cancel(self, request_id: str) -> None:
        """Drop a request before the next step. Does nothing if it is unknown or finished."""

        def drop() -> None:
            if self._alive:
                self._scheduler.cancel(request_id)
                self._forget(request_id)

        self._post(drop)

    def call(self, work: Callable[[Runner, Scheduler], Result]) -> Future[Result]:
        """Call `work` between two steps. The future gets its result; cancel the future to drop `work`."""
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            if not self._alive:
                future.set_exception(EngineDeadError("the engine has stopped and accepts no more requests"))
                return
            try:
                result = work(self._runner, self._scheduler)
            except Exception as error:
                future.set_exception(error)
            else:
                future.set_result(result)

        with self._gate:
            if self._alive:
                self._post(run)
                return future
        future.set_exception(EngineDeadError("the engine has stopped and accepts no more requests"))
        return future

    def state(self) -> EngineState:
        """Return the engine's state after the last step, without the loaded adapters."""
        since = self._busy_since
        progress = 0.0 if since is None else time.perf_counter() - since
        return dataclasses.replace(self._snapshot, alive=self._alive, progress=progress)

    @property
    def alive(self) -> bool:
        """True while the engine's thread runs and accepts work."""
        return self._alive

    def abandon(self) -> None:
        """Accept no more work, and let the thread end after the current step. Does not wait for that."""
        with self._gate:
            self._closing, self._abandoned, self._alive = True, True, False
        self._wake.set()

    def close(self) -> None:
        """Stop after the current step and release the runner. Waits at most `CLOSE_SECONDS`."""
        self._closing = True
        self._wake.set()
        if self._thread.is_alive() and not self._abandoned:
            self._thread.join(CLOSE_SECONDS)
        if self._thread.is_alive() and not self._abandoned:
            logger.error(
                "the engine closes although its current step did not end within %g seconds",
                CLOSE_SECONDS,
            )

    # Called in the thread.

    def _post(self, work: Callable[[], None]) -> None:
        self._inbox.append(work)
        self._wake.set()

    def _main(self) -> None:
        fault: EngineDeadError | None = None
        try:
            while not self._closing:
                self._busy_since = time.perf_counter()
                self._drain()
                if not self._step():
                    self._wake.wait()
                self._wake.clear()
        except BaseException:  # a panic in native code is not an `Exception`
            logger.exception(
                "the engine stops and its requests fail, because a step raised an unexpected error"
            )
            fault = EngineDeadError(
                "the engine stopped because of an internal error; the server's log has the details"
            )
        with self._gate:
            self._alive = False
        self._busy_since = None
        self._snapshot = dataclasses.replace(self._snapshot, running={}, waiting={})
        if fault is not None:  # only now, to include every request added before
            self._outbox.on_death(fault)
        self._drain()
        self._runner.close()

    def _drain(self) -> None:
        while self._inbox:
            self._inbox.popleft()()

    def _step(self) -> bool:
        began = self._busy_since = time.perf_counter()
        step = self._scheduler.schedule()
        if step.empty:
            self._busy_since = None
            self._publish()
            return False
        batch: list[Delivery] = []
        for sequence, error in step.faults:
            self._break(sequence, _own_fault(sequence, error), batch)
        sequences, logits = self._run(step, batch)
        self._scheduler.advance(step)
        self._choose(sequences, logits, batch)
        for chunk in step.chunks:
            try:
                self._end_without_token(chunk, batch)
            except Exception as error:
                self._break(chunk.sequence, _own_fault(chunk.sequence, error), batch)
        seconds = time.perf_counter() - began
        self._slowest_step = max(self._slowest_step, seconds)
        self._publish()
        if batch:
            self._outbox.deliver(batch)
        self._observe(seconds, len(step.chunks) + len(step.decodes))
        return True

    def _observe(self, seconds: float, batch: int) -> None:
        if self._observer is None:
            return
        try:
            self._observer.step(seconds, batch)
        except Exception:  # metrics must not end a request
            logger.exception(
                "recording a step's metrics raised an error, so step metrics are now off; requests continue"
            )
            self._observer = None

    def _run(self, step: Step, batch: list[Delivery]) -> tuple[list[Running], NDArray[np.float32]]:
        """Run the graph for `step`. Return the sequences that get a token, and their logits in that order."""
        runner = self._runner
        for row in step.released:
            runner.release(row)
        for copy in step.copies:
            runner.copy(copy.source, copy.target, copy.length)
        sequences: list[Running] = []
        rows: list[NDArray[np.float32]] = []
        for chunk in step.chunks:
            try:
                logits = self._prefill(chunk)
            except BadLogitsError as error:
                self._break(chunk.sequence, error.faults[error.rows[0]], batch)
                continue
            except (EngineError, ValueError) as error:  # scoring failed, or the runner refused it
                self._break(chunk.sequence, _own_fault(chunk.sequence, error), batch)
                continue
            if chunk.final and chunk.sequence.request.sampling.max_tokens > 0:
                sequences.append(chunk.sequence)
                rows.append(logits[-1:].copy())
        for done, decoded in self._decode(step.decodes, batch):
            sequences.extend(done)
            rows.append(decoded)
        if not rows:
            return sequences, np.empty((0, runner.vocabulary), np.float32)
        return sequences, rows[0] if len(rows) == 1 else np.concatenate(rows)

    def _decode(
        self, sequences: Sequence[Running], batch: list[Delivery]
    ) -> list[tuple[Sequence[Running], NDArray[np.float32]]]:
        """Decode one token per sequence in one run. If that fails, decode each sequence alone."""
        if not sequences:
            return []
        rows = [DecodeRow(s.row, s.tokens[s.computed], s.computed, s.adapter_mix) for s in sequences]
        try:
            return [(sequences, self._runner.decode(rows))]
        except ValueError as error:
            if len(sequences) == 1:
                self._break(sequences[0], _own_fault(sequences[0], error), batch)
                return []
        alone = (done for sequence in sequences for done in self._decode([sequence], batch))
        return [(done, logits.copy()) for done, logits in alone]

    def _prefill(self, chunk: Chunk) -> NDArray[np.float32]:
        sequence, start, length = chunk.sequence, chunk.start, chunk.length
        tokens = sequence.tokens[start : start + length]
        top = sequence.request.sampling.prompt_logprobs
        scored = range(0)
        if start == 0:  # preempted prompts begin again
            self._prompt_scores.pop(sequence.request.request_id, None)
        if top is not None and sequence.generated == 0:
            scored = range(min(length, max(0, sequence.prompt_length - 1 - start)))
        outputs = list(scored)
        if chunk.final and (not outputs or outputs[-1] != length - 1):
            outputs.append(length - 1)
        logits = self._runner.prefill(sequence.row, start, tokens, sequence.adapter_mix, outputs)
        if len(scored) and top is not None:
            following = sequence.tokens[start + 1 : start + 1 + len(scored)]
            try:
                scores = self._sampler.score(logits[: len(scored)], following, top)
            except Exception as error:
                raise _own_fault(sequence, error) from error
            self._prompt_scores.setdefault(sequence.request.request_id, []).extend(scores)
        return logits

    def _choose(self, sequences: list[Running], logits: NDArray[np.float32], batch: list[Delivery]) -> None:
        """Sample a token for each sequence. Only sequences with a sampling error fail."""
        while sequences:
            try:
                states = [self._states[s.request.request_id] for s in sequences]
                choices = self._sampler.sample(logits, states)
            except BadRowsError as error:
                for row, fault in error.faults.items():
                    self._break(sequences[row], fault, batch)
                kept = [row for row in range(len(sequences)) if row not in error.faults]
                sequences, logits = [sequences[row] for row in kept], logits[kept]
                continue
            for sequence, choice in zip(sequences, choices, strict=True):
                try:
                    batch.append((sequence, self._append(sequence, choice)))
                except Exception as error:
                    self._break(sequence, _own_fault(sequence, error), batch)
            return

    def _break(self, sequence: Running, fault: EngineError, batch: list[Delivery]) -> None:
        """End a sequence with an error, and do not keep its KV cache as a reusable prefix."""
        request_id = sequence.request.request_id
        blame = logging.INFO if isinstance(fault, UnsupportedRequestError) else logging.ERROR
        logger.log(blame, "request %s: %s", request_id, fault)
        self._scheduler.cancel(request_id, reuse=False)
        self._forget(request_id)
        batch.append((sequence, fault))

    def _append(self, sequence: Running, choice: SampledToken) -> StepEvent:
        request_id = sequence.request.request_id
        self._scheduler.append(sequence, choice.token_id)
        reason, stop, completes = self._finished(sequence, choice.token_id)
        prompt = None
        if sequence.request.sampling.prompt_logprobs is not None and sequence.generated == 1:
            prompt = tuple(self._prompt_scores.pop(request_id, ()))
        if reason is not None:
            self._scheduler.finish(sequence)
            self._forget(request_id)
        return StepEvent(choice.token_id, choice.logprob, prompt, reason, stop, completes)

    def _finished(self, sequence: Running, token: int) -> tuple[FinishReason | None, int | None, bool]:
        """Return why the text ends (or None), the stop token, and if `token` completes a grammar."""
        sampling = sequence.request.sampling
        guide = self._states[sequence.request.request_id].guide
        if guide is not None and guide.complete:
            return "stop", None, token not in self._eos_ids
        if sequence.generated >= sampling.min_tokens:
            if token in sampling.stop_token_ids:
                return "stop", token, False
            if token in self._eos_ids and not sampling.ignore_eos:
                return "stop", None, False
        if sequence.generated >= sampling.max_tokens:
            return "length", None, False
        return None, None, False

    def _end_without_token(self, chunk: Chunk, batch: list[Delivery]) -> None:
        """Finish a request that generates no tokens (`max_tokens` 0) after its last chunk."""
        sequence = chunk.sequence
        if not chunk.final or sequence.request.sampling.max_tokens > 0 or sequence.row < 0:
            return
        request_id = sequence.request.request_id
        scores = tuple(self._prompt_scores.pop(request_id, ()))
        asked = sequence.request.sampling.prompt_logprobs is not None
        self._scheduler.finish(sequence)
        self._forget(request_id)
        batch.append((sequence, StepEvent(None, None, scores if asked else None, "length")))

    def _forget(self, request_id: str) -> None:
        self._states.pop(request_id, None)
        self._prompt_scores.pop(request_id, None)

    def _publish(self) -> None:
        scheduler = self._scheduler
        self._snapshot = EngineState(
            alive=self._alive,
            progress=0.0,
            slowest_step=self._slowest_step,
            running=scheduler.running_by_share,
            waiting=scheduler.waiting_by_share,
            kv_tokens=scheduler.kv_tokens,
            kv_capacity=scheduler.kv_capacity,
            kv_cached=scheduler.kv_cached,
            prefix_queries=scheduler.prefix_queries,
            prefix_hits=scheduler.prefix_hits,
            preemptions=scheduler.preemptions,
            made_way=scheduler.made_way,
        )
