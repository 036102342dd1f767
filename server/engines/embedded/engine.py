"""The embedded engine: implements the `Engine` protocol with a scheduling loop in a thread of its own."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from adapters.files.hashes import HashCache
from adapters.lora.manifest import Adapter
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.base import StepObserver
from server.engines.embedded.host_weights import HostWeights
from server.engines.embedded.loop import StepLoop
from server.engines.embedded.outbox import Delivery
from server.engines.embedded.runners.device.reference_logits import DeviceCheck
from server.engines.embedded.runners.protocol import Runner
from server.engines.embedded.sampling.sampler import Sampler, SamplerState
from server.engines.embedded.scheduling.limits import PAGE, SchedulerLimits
from server.engines.embedded.scheduling.scheduler import Scheduler
from server.engines.embedded.scheduling.step import Sequence as Running
from server.engines.shared.admission import Admission, check_fits, probe_of
from server.engines.shared.residents import Residents
from server.engines.shared.stream import DeltaStream
from server.errors import EngineDeadError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import DeviceInfo, EngineInfo, EngineState, Tier
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # imports llguidance, which most servers never need
    from server.engines.embedded.sampling.guided import Guide, Guides


class EmbeddedEngine:
    """Serves one base model on one device; requests with different adapters can share a batch.

    `start` calls `open_runner` in a worker thread to load the ONNX graph. `check` compares each adapter's
    logits on the device with the CPU's before requests can use the adapter. `max_cpu_adapters` limits the
    adapters whose weights are in memory, including those in the engine's adapter slots. With None, evicted
    adapters are dropped from memory. `hashes` caches the SHA-256 digests of weight files that were verified
    before.
    """

    def __init__(
        self,
        *,
        open_runner: Callable[[], Runner],
        shape: ModelShape,
        limits: SchedulerLimits,
        tokenizer: Tokenizer,
        base_digest: str,
        vocabulary: int,
        max_queue: int,
        max_adapters: int = 64,
        max_cpu_adapters: int | None = None,
        hashes: HashCache | None = None,
        observer: StepObserver | None = None,
        check: DeviceCheck | None = None,
        device: DeviceInfo | None = None,
    ) -> None:
        self._open_runner = open_runner
        self._check = check
        self._shape = shape
        self._limits = limits
        self._tokenizer = tokenizer
        self._observer = observer
        self.info = EngineInfo(
            name="embedded",
            base_digest=base_digest,
            context=limits.context,
            vocabulary=vocabulary,
            blends=True,
            max_adapters=max_adapters,
            tiers=("device", "host") if (max_cpu_adapters or 0) > max_adapters else ("device",),
            device=device,
            kv_block=PAGE,
        )
        self._host = HostWeights(max(0, (max_cpu_adapters or 0) - max_adapters))
        self._hashes = hashes
        self._evicting: set[str] = set()
        self.residents = Residents(max_adapters, self._bring_in, self._drop)
        self._admission = Admission(
            tokenizer, self.residents, at_once=limits.max_num_seqs, queue=max_queue, end=self._close
        )
        self.places = self._admission.places
        self._guides: Guides | None = None
        self._closed = False
        self._loop: StepLoop | None = None
        self._events: asyncio.AbstractEventLoop | None = None

    async def start(self) -> None:
        """Load the ONNX graph in a worker thread, and start the scheduling loop's thread."""
        self._events = asyncio.get_running_loop()
        runner = await asyncio.to_thread(self._open_runner)
        eos_ids = self._tokenizer.eos_ids
        sampler = Sampler(self.info.vocabulary, eos_ids)
        self._loop = StepLoop(Scheduler(self._limits), runner, sampler, self, self._observer, eos_ids)
        self._loop.start()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Add `request` to the engine, and yield its answer delta by delta as tokens are generated.

        See `Engine.generate`.
        """
        stream = self._open(request, await self._guide(request.sampling.grammar))
        try:
            while not stream.done:
                yield await stream.next()
        finally:
            self._close(stream)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Raise `UnsupportedRequestError`: the embedded engine returns token logits only and has no
        embeddings.
        """
        raise UnsupportedRequestError(
            "the embedded engine cannot compute embeddings; use the vllm engine", "model"
        )

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into an adapter slot of the engine, and generate one token with it as a test.

        The weights file is read in a worker thread. See `Engine.load`.
        """
        await self.residents.load(adapter)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Unload the adapter with this `digest` once no request uses it.

        With `keep`, its weights stay in host memory. See `Engine.unload`.
        """
        if not keep:
            await self.residents.unload(digest)
            self._host.left(digest, keep=False)
            return
        self._evicting.add(digest)
        try:
            await self.residents.unload(digest)
        finally:
            self._evicting.discard(digest)

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state: liveness, load counters and loaded adapters.

        See `Engine.state`.
        """
        if self._loop is None:
            return EngineState(alive=False, progress=0.0)
        resident: dict[str, Tier] = dict.fromkeys(self._host.kept, "host")
        resident |= dict.fromkeys(self.residents.open, "device")
        return dataclasses.replace(
            self._loop.state(), unread=self._admission.unread.dropped, resident=resident
        )

    def fail(self, reason: str) -> None:
        """Mark the engine as dead for this `reason`, and end all answers in progress with `EngineDeadError`.

        See `Engine.fail`.
        """
        if self._loop is not None:
            self._loop.abandon()
        self._admission.fail_all(EngineDeadError(reason))
        self.residents.abandon()

    async def close(self) -> None:
        """End all answers in progress with `EngineDeadError`, stop the engine's thread and free its
        memory.
        """
        self._closed = True
        if self._loop is None:
            return
        self._admission.fail_all(EngineDeadError("the answer was ended, because the server is shutting down"))
        await asyncio.to_thread(self._loop.close)
        self.residents.abandon()

    # `Outbox`: the step loop calls these in its thread.

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Hand the events of one engine step (new tokens, errors) to the asyncio event loop in a single
        call.
        """
        self._on_event_loop(lambda: self._dispatch(batch))

    def on_death(self, error: EngineDeadError) -> None:
        """End every answer in progress with `error`, after the engine's thread has died."""

        def tell() -> None:
            self._admission.fail_all(error)
            self.residents.abandon()

        self._on_event_loop(tell)

    def _on_event_loop(self, work: Callable[[], None]) -> None:
        assert self._events is not None
        with suppress(RuntimeError):  # the event loop has closed, and its streams with it
            self._events.call_soon_threadsafe(work)

    # Called on the event loop.

    def _dispatch(self, batch: Sequence[Delivery]) -> None:
        for sequence, event in batch:
            stream = self._admission.get(sequence.request.request_id)
            if stream is None or stream.work is not sequence:  # the request was cancelled meanwhile
                continue
            if isinstance(event, EngineError):
                stream.fail(event)
            else:
                stream.feed(event)
            if isinstance(event, EngineError) or event.finish_reason is not None:
                # Free the place before the client has read the answer: slow clients must not block others.
                self._admission.release(stream)

    async def _guide(self, grammar: str) -> Guide | None:
        if not grammar:
            return None
        from server.engines.embedded.sampling.guided import Guides

        if self._guides is None:
            self._guides = Guides(self._tokenizer, self.info.vocabulary)
        return await self._guides.guide(grammar)

    def _open(
        self, request: GenerationRequest, guide: Guide | None = None, *, probe: bool = False
    ) -> DeltaStream:
        loop = self._loop
        if loop is None or self._closed or not loop.alive:
            raise EngineDeadError(
                "the embedded engine is not running and takes no requests; restart the server"
            )
        if not probe:
            self._admission.check_room(request)
        check_fits(request, self.info, self._limits.kv_capacity)
        vocabulary, eos_ids = self.info.vocabulary, self._tokenizer.eos_ids
        try:
            state = SamplerState(request.sampling, request.prompt, vocabulary, eos_ids, guide)
        except ValueError as error:
            raise UnsupportedRequestError(str(error), "logit_bias") from error
        sequence = Running(request, time.perf_counter())
        stream = self._admission.admit(sequence, probe=probe)
        loop.add(sequence, state)
        return stream

    def _close(self, stream: DeltaStream) -> None:
        stream.discard()
        if self._admission.release(stream) and self._loop is not None:
            self._loop.cancel(stream.work.request.request_id)

    async def _bring_in(self, adapter: Adapter) -> None:
        digest = adapter.digest
        weights = self._host.get(digest)
        if weights is None:
            weights = await asyncio.to_thread(
                read_adapter, adapter.path, self._shape, digest=digest, hashes=self._hashes
            )
        await self._take_in(digest, weights)
        self._host.loaded(digest, weights)

    async def _take_in(self, digest: str, weights: AdapterWeights) -> None:
        check = self._check
        if check is not None:
            await asyncio.to_thread(check.prepare, {digest: weights})
        await asyncio.wrap_future(self._call(lambda runner, _: runner.load(digest, weights)))
        if check is not None:
            await asyncio.wrap_future(self._call(lambda r, s: _examine(check, r, s, digest)))
        await self._probe(digest)

    def _drop(self, digest: str) -> asyncio.Future[None]:
        """Remove an adapter from the runner.

        This happens in the engine's thread, after all calls made before.
        """
        self._host.left(digest, keep=digest in self._evicting)

        def remove(runner: Runner, scheduler: Scheduler) -> None:
            scheduler.forget(digest)
            runner.unload(digest)

        return asyncio.wrap_future(self._call(remove))

    def _call(self, work: Callable[[Runner, Scheduler], None]) -> Future[None]:
        if self._loop is None:
            raise EngineDeadError("the embedded engine is not running; restart the server to change adapters")
        return self._loop.call(work)

    async def _probe(self, digest: str) -> None:
        """Generate one token with a newly loaded adapter as a test, before requests can use the adapter."""
        request = probe_of(digest, self._tokenizer.bos_id)
        stream = self._open(request, probe=True)
        try:
            while not stream.done:
                await stream.next()
        finally:
            self._close(stream)


def _examine(check: DeviceCheck, runner: Runner, scheduler: Scheduler, digest: str) -> None:
    check.examine(runner, scheduler.lend(2), digest)
