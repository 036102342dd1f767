"""The embedded engine as the server sees it: `Engine` over the step loop's thread."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import TYPE_CHECKING

from adapters.lora.hashes import HashCache
from adapters.lora.manifest import Adapter
from adapters.lora.weights import AdapterWeights, ModelShape, read_adapter
from server.engines.base import StepObserver
from server.engines.embedded.host_weights import HostWeights
from server.engines.embedded.loop import Delivery, StepLoop
from server.engines.embedded.runners.device.reference_logits import DeviceCheck
from server.engines.embedded.runners.protocol import Runner
from server.engines.embedded.sampling.sampler import Sampler, SamplerState
from server.engines.embedded.scheduling.limits import SchedulerLimits
from server.engines.embedded.scheduling.scheduler import Scheduler
from server.engines.embedded.scheduling.step import Sequence as Running
from server.engines.shared.admission import Admission, check_fits, probe_of
from server.engines.shared.residents import Residents
from server.engines.shared.stream import DeltaStream
from server.errors import EngineDeadError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import DeviceInfo, EngineInfo, EngineState, Tier
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer

if TYPE_CHECKING:  # it loads llguidance, which most servers never need
    from server.engines.embedded.sampling.guided import Guide, Guides


class EmbeddedEngine:
    """One base on one device, with adapters mixed in every batch.

    `open_runner` loads the graph; it runs in a worker thread at `start`. With `check`, each adapter is judged
    by the CPU's logits before any request may name it. `max_cpu_adapters` counts the adapters whose weights
    are in memory, those in slots among them; None keeps no others. `hashes` remembers what was verified.
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
        """Open the graph and start the step loop."""
        self._events = asyncio.get_running_loop()
        runner = await asyncio.to_thread(self._open_runner)
        eos_ids = self._tokenizer.eos_ids
        sampler = Sampler(self.info.vocabulary, eos_ids)
        self._loop = StepLoop(Scheduler(self._limits), runner, sampler, self, self._observer, eos_ids)
        self._loop.start()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        stream = self._open(request, await self._guide(request.sampling.grammar))
        try:
            while not stream.done:
                yield await stream.next()
        finally:
            self._close(stream)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Not served: the graph ends in logits."""
        raise UnsupportedRequestError("this engine makes no embeddings; the vllm engine does", "model")

    async def load(self, adapter: Adapter) -> None:
        """See `Engine.load`. The file is read in a worker thread; the probe is one token."""
        await self.residents.load(adapter)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """See `Engine.unload`."""
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
        """See `Engine.state`."""
        if self._loop is None:
            return EngineState(alive=False, progress=0.0)
        resident: dict[str, Tier] = dict.fromkeys(self._host.kept, "host")
        resident |= dict.fromkeys(self.residents.open, "device")
        return dataclasses.replace(
            self._loop.state(), unread=self._admission.unread.dropped, resident=resident
        )

    def fail(self, reason: str) -> None:
        """See `Engine.fail`."""
        if self._loop is not None:
            self._loop.abandon()
        self._admission.fail_all(EngineDeadError(reason))
        self.residents.abandon()

    async def close(self) -> None:
        """Fail what runs and release everything."""
        self._closed = True
        if self._loop is None:
            return
        self._admission.fail_all(EngineDeadError("the server is shutting down"))
        await asyncio.to_thread(self._loop.close)
        self.residents.abandon()

    # The outbox of the step loop: called in its thread.

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Hand one step's events over to the event loop, in one call."""
        self._on_event_loop(lambda: self._dispatch(batch))

    def on_death(self, error: EngineDeadError) -> None:
        """Fail every stream."""

        def tell() -> None:
            self._admission.fail_all(error)
            self.residents.abandon()

        self._on_event_loop(tell)

    def _on_event_loop(self, work: Callable[[], None]) -> None:
        assert self._events is not None
        with suppress(RuntimeError):  # the event loop has closed; nobody is left to tell
            self._events.call_soon_threadsafe(work)

    # On the event loop.

    def _dispatch(self, batch: Sequence[Delivery]) -> None:
        for sequence, event in batch:
            stream = self._admission.get(sequence.request.request_id)
            if stream is None or stream.work is not sequence:  # it was cancelled meanwhile
                continue
            if isinstance(event, EngineError):
                stream.fail(event)
            else:
                stream.feed(event)
            if isinstance(event, EngineError) or event.finish_reason is not None:
                # Now, not when it has been read: a client that stalls holds up nobody.
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
            raise EngineDeadError("the engine is not running")
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
        """Have the engine's thread forget an adapter, after all that it was told before."""
        self._host.left(digest, keep=digest in self._evicting)

        def remove(runner: Runner, scheduler: Scheduler) -> None:
            scheduler.forget(digest)
            runner.unload(digest)

        return asyncio.wrap_future(self._call(remove))

    def _call(self, work: Callable[[Runner, Scheduler], None]) -> Future[None]:
        if self._loop is None:
            raise EngineDeadError("the engine is not running")
        return self._loop.call(work)

    async def _probe(self, digest: str) -> None:
        """One token with the adapter, before any traffic; ordinary requests run beside it."""
        request = probe_of(digest, self._tokenizer.bos_id)
        stream = self._open(request, probe=True)
        try:
            while not stream.done:
                await stream.next()
        finally:
            self._close(stream)


def _examine(check: DeviceCheck, runner: Runner, scheduler: Scheduler, digest: str) -> None:
    check.examine(runner, scheduler.lend(2), digest)
