"""The embedded engine as the server sees it: `Engine` over the step loop's thread."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections import Counter, defaultdict
from collections.abc import AsyncGenerator, Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress

from adapters.errors import FileRefusedError
from adapters.manifest import Adapter
from adapters.weights import ModelShape, read_adapter
from server.engines.base import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineInfo,
    EngineState,
    StepObserver,
    UnsupportedRequestError,
)
from server.engines.detokenizer import TextStream
from server.engines.embedded.limits import Limits
from server.engines.embedded.loop import Delivery, StepLoop
from server.engines.embedded.runner import Runner
from server.engines.embedded.sampler import Sampler, SamplerState
from server.engines.embedded.scheduler import Scheduler
from server.engines.embedded.step import Sequence as Running
from server.engines.stream import Stream
from server.request import Delta, EmbeddingRequest, GenerationRequest, Sampling
from server.tokens import Tokenizer

PROBE = "adapter-probe"


class EmbeddedEngine:
    """One base on one device, with adapters mixed in every batch.

    `open_runner` loads the graph; it runs in a worker thread at `start`.
    """

    def __init__(
        self,
        *,
        open_runner: Callable[[], Runner],
        shape: ModelShape,
        limits: Limits,
        tokenizer: Tokenizer,
        base_digest: str,
        vocabulary: int,
        max_queue: int,
        max_adapters: int = 64,
        observer: StepObserver | None = None,
    ) -> None:
        self._open_runner = open_runner
        self._shape = shape
        self._limits = limits
        self._tokenizer = tokenizer
        self._max_live = limits.max_num_seqs + max_queue
        self._observer = observer
        self._info = EngineInfo(
            name="embedded",
            base_digest=base_digest,
            context=limits.context,
            vocabulary=vocabulary,
            blends=True,
            max_adapters=max_adapters,
        )
        self._streams: dict[str, Stream] = {}
        self._users: Counter[str] = Counter()
        self._drained: dict[str, asyncio.Event] = {}
        self._resident: frozenset[str] = frozenset()
        """Open to requests. Replaced, never changed, since any thread may read it."""
        self._held: set[str] = set()
        """Those, and what is being loaded or unloaded."""
        self._changing = defaultdict[str, asyncio.Lock](asyncio.Lock)
        self._loading = asyncio.Lock()
        self._closed = False
        self._loop: StepLoop | None = None
        self._events: asyncio.AbstractEventLoop | None = None
        self._seconds_per_request = 1.0

    @property
    def info(self) -> EngineInfo:
        """What never changes."""
        return self._info

    async def start(self) -> None:
        """Open the graph and start the step loop."""
        self._events = asyncio.get_running_loop()
        runner = await asyncio.to_thread(self._open_runner)
        eos_ids = self._tokenizer.eos_ids
        sampler = Sampler(self._info.vocabulary, eos_ids)
        self._loop = StepLoop(Scheduler(self._limits), runner, sampler, self, self._observer, eos_ids)
        self._loop.start()

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        stream = self._open(request)
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
        digest = adapter.digest
        async with self._changing[digest]:
            if digest in self._resident:
                return
            if len(self._held) >= self._info.max_adapters:
                raise AdapterRefusedError(
                    f"{adapter.full_name}: {len(self._held)} adapters are resident, the most this engine "
                    "holds; unload one first"
                )
            self._held.add(digest)
            try:
                async with self._loading:
                    await self._bring_in(adapter)
            except BaseException as error:
                # Follows the insertion, whether that has run or not, so that nothing is left of it.
                self._drop(digest)
                refusal = _refusal(error)
                if refusal is None:
                    raise
                raise AdapterRefusedError(f"{adapter.full_name}: {refusal}") from error
            self._resident |= {digest}

    async def unload(self, digest: str) -> None:
        """See `Engine.unload`."""
        async with self._changing[digest]:
            if digest not in self._resident:
                return
            self._resident -= {digest}
            if self._users[digest]:
                drained = self._drained[digest] = asyncio.Event()
                try:
                    await drained.wait()
                except asyncio.CancelledError:
                    self._drained.pop(digest, None)
                    self._resident |= {digest}
                    raise
            await asyncio.shield(asyncio.wrap_future(self._drop(digest)))

    def state(self) -> EngineState:
        """See `Engine.state`."""
        if self._loop is None:
            return EngineState(alive=False, progress=0.0)
        return dataclasses.replace(self._loop.state(), resident=dict.fromkeys(self._resident, "device"))

    async def close(self) -> None:
        """Fail what runs and release everything."""
        self._closed = True
        if self._loop is None:
            return
        self._fail_all(EngineDeadError("the server is shutting down"))
        await asyncio.to_thread(self._loop.close)
        self._release_unloads()

    # The outbox of the step loop: called in its thread.

    def deliver(self, batch: Sequence[Delivery]) -> None:
        """Hand one step's events over to the event loop, in one call."""
        self._on_event_loop(lambda: self._dispatch(batch))

    def died(self, error: EngineDeadError) -> None:
        """Fail every stream."""

        def tell() -> None:
            self._fail_all(error)
            self._release_unloads()

        self._on_event_loop(tell)

    def _on_event_loop(self, work: Callable[[], None]) -> None:
        assert self._events is not None
        with suppress(RuntimeError):  # the event loop has closed; nobody is left to tell
            self._events.call_soon_threadsafe(work)

    # On the event loop.

    def _dispatch(self, batch: Sequence[Delivery]) -> None:
        for sequence, event in batch:
            stream = self._streams.get(sequence.request.request_id)
            if stream is None or stream.sequence is not sequence:  # it was cancelled meanwhile
                continue
            if isinstance(event, EngineError):
                stream.fail(event)
            else:
                stream.feed(event)
            if isinstance(event, EngineError) or event.finish_reason is not None:
                # Now, not when it has been read: a client that stalls holds up nobody.
                self._release(stream)

    def _fail_all(self, error: EngineError) -> None:
        for stream in list(self._streams.values()):
            stream.fail(error)

    def _release_unloads(self) -> None:
        """No request runs any more, even where its reader has not noticed."""
        for drained in self._drained.values():
            drained.set()
        self._drained.clear()

    def _open(self, request: GenerationRequest, *, probe: bool = False) -> Stream:
        loop = self._loop
        if loop is None or self._closed or not loop.alive:
            raise EngineDeadError("the engine is not running")
        if len(self._streams) >= self._max_live and not probe:
            raise EngineBusyError(
                f"{len(self._streams)} requests are running or waiting, the most this server takes",
                retry_after=self._retry_after(),
            )
        self._check(request, probe=probe)
        vocabulary, eos_ids = self._info.vocabulary, self._tokenizer.eos_ids
        try:
            state = SamplerState(request.sampling, request.prompt, vocabulary, eos_ids)
        except ValueError as error:
            raise UnsupportedRequestError(str(error), "logit_bias") from error
        sequence = Running(request, time.perf_counter())
        sampling, before = request.sampling, request.prompt if request.continues else ()
        text = TextStream(self._tokenizer, sampling.stop, sampling.min_tokens, prompt=before)
        stream = Stream(sequence, text)
        self._streams[request.request_id] = stream
        for digest, _ in request.voice:
            self._users[digest] += 1
        loop.add(sequence, state)
        return stream

    def _retry_after(self) -> float:
        """Seconds until the queue has been worked off, from how long requests ran lately."""
        return max(1.0, self._seconds_per_request * len(self._streams) / self._limits.max_num_seqs)

    def _check(self, request: GenerationRequest, *, probe: bool) -> None:
        if request.request_id in self._streams:
            raise ValueError(f"request_id {request.request_id!r} is in use")
        prompt, wanted = len(request.prompt), request.sampling.max_tokens
        total = prompt + wanted
        if prompt and not 0 <= min(request.prompt) <= max(request.prompt) < self._info.vocabulary:
            raise UnsupportedRequestError(
                f"the prompt has a token outside the base's vocabulary of {self._info.vocabulary}", "prompt"
            )
        if not prompt or total > self._limits.context:
            raise UnsupportedRequestError(
                f"{prompt} prompt tokens and {wanted} to generate do not fit the context of "
                f"{self._limits.context}",
                "max_tokens",
            )
        if total > self._limits.kv_tokens:
            raise UnsupportedRequestError(
                f"{total} tokens do not fit the KV cache of {self._limits.kv_tokens} tokens; "
                "ask for fewer, or give the server more with --kv-cache-memory",
                "max_tokens",
            )
        for digest, _ in request.voice:
            if digest not in self._resident and not probe:
                raise AdapterNotLoadedError(f"adapter {digest[:19]} is not loaded")

    def _close(self, stream: Stream) -> None:
        if self._release(stream) and self._loop is not None:
            self._loop.cancel(stream.sequence.request.request_id)

    def _release(self, stream: Stream) -> bool:
        """Give back a stream's place and adapters; False where its last event had done so."""
        request, began = stream.sequence.request, stream.sequence.scheduled
        if self._streams.get(request.request_id) is not stream:
            return False
        del self._streams[request.request_id]
        if began is not None:
            self._seconds_per_request += 0.05 * (time.perf_counter() - began - self._seconds_per_request)
        for digest, _ in request.voice:
            self._users[digest] -= 1
            if not self._users[digest]:
                del self._users[digest]
                drained = self._drained.pop(digest, None)
                if drained is not None:
                    drained.set()
        return True

    async def _bring_in(self, adapter: Adapter) -> None:
        digest = adapter.digest
        weights = await asyncio.to_thread(read_adapter, adapter.path, self._shape, digest=digest)
        await asyncio.wrap_future(self._call(lambda runner, _: runner.load(digest, weights)))
        await self._probe(digest)

    def _drop(self, digest: str) -> Future[None]:
        """Have the engine's thread forget an adapter, after all that it was told before."""

        def remove(runner: Runner, scheduler: Scheduler) -> None:
            scheduler.forget(digest)
            runner.unload(digest)

        self._held.discard(digest)
        return self._call(remove)

    def _call(self, work: Callable[[Runner, Scheduler], None]) -> Future[None]:
        if self._loop is None:
            raise EngineDeadError("the engine is not running")
        return self._loop.call(work)

    async def _probe(self, digest: str) -> None:
        """One token with the adapter, before any traffic; ordinary requests run beside it."""
        prompt = (self._tokenizer.bos_id if self._tokenizer.bos_id is not None else 0,)
        request = GenerationRequest(
            request_id=f"{PROBE}-{digest}",
            prompt=prompt,
            sampling=Sampling(max_tokens=1, temperature=0.0),
            voice=((digest, 1.0),),
            cache_salt=PROBE,
            share=digest,
        )
        stream = self._open(request, probe=True)
        try:
            while not stream.done:
                await stream.next()
        finally:
            self._close(stream)


def _refusal(error: BaseException) -> str | None:
    """Why an adapter cannot be loaded, naming no folder of the host; None where the fault is not its own."""
    if isinstance(error, FileRefusedError):
        return error.public
    if isinstance(error, OSError):
        return error.strerror or type(error).__name__
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, EngineError) and not isinstance(error, EngineDeadError):
        return f"its probe failed: {error}"
    return None
