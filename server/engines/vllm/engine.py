"""An engine whose base runs in a separate process, vLLM's engine core. Handles admission, streams and
adapters.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import shutil
import tempfile
import time
from collections import Counter
from collections.abc import AsyncGenerator, Coroutine, Sequence
from pathlib import Path
from typing import Any

from adapters.files.hashes import HashCache
from adapters.lora.flatten import write_plain
from adapters.lora.manifest import Adapter
from adapters.lora.weights import ModelShape, read_adapter
from server.engines.base import StepObserver
from server.engines.shared.admission import Admission, check_fits, probe_of
from server.engines.shared.front import FrontQueue, FrontTurn
from server.engines.shared.residents import Residents
from server.engines.shared.stream import DeltaStream, StepEvent
from server.engines.vllm.protocol import Core, CoreRequest
from server.errors import EngineBusyError, EngineDeadError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import EngineState
from server.request import Delta, EmbeddingRequest, GenerationRequest
from server.text.tokenizer import Tokenizer

log = logging.getLogger("oneseek.vllm")

EMBEDDINGS_PER_SEQUENCE = 4
"""Maximum number of texts that are embedded at once, as a multiple of the batch size."""


class CoreEngine:
    """An engine that serves one base through `Core`, in a separate process. A request can use at most one
    adapter.
    """

    def __init__(
        self,
        core: Core,
        *,
        base: Path,
        tokenizer: Tokenizer,
        max_queue: int,
        observer: StepObserver | None = None,
    ) -> None:
        self._core = core
        self.hashes: HashCache | None = None
        """Cache of verified file hashes; if None, an adapter's weights are hashed at every load."""
        self.info = core.info
        self._base = base
        self._tokenizer = tokenizer
        self._observer = observer
        self.residents = Residents(core.info.max_adapters, self._bring_in, self._drop)
        at_once = core.at_once
        self._admission = Admission(
            tokenizer, self.residents, at_once=at_once, queue=max_queue, end=self._close
        )
        self.places = self._admission.places
        self._front = FrontQueue(at_once)
        self._running: dict[str, DeltaStream] = {}
        """Maps the id of each request in the core to the stream of its answer."""
        self._embedding = 0
        self._names = itertools.count(1)
        self._adapter_numbers = itertools.count(1)
        self._numbers: dict[str, int] = {}
        """Maps the digest of each loaded adapter to the adapter's number in the core."""
        self._copies = tempfile.TemporaryDirectory(prefix="oneseek-adapters-")
        self._aborts: list[str] = []
        self._tasks: set[asyncio.Task[None]] = set()
        self._started = False
        self._dead: str | None = None
        self._last_step = time.perf_counter()
        self._slowest_step = 0.0

    async def start(self) -> None:
        """Start the core's process and load the base. See `Engine.start`."""
        await self._core.start(self)
        self._started = True

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """Add `request` to the engine, and yield its answer piece by piece. See `Engine.generate`."""
        stream = await self._open(request)
        try:
            while not stream.done:
                yield await stream.next()
        finally:
            self._close(stream)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """Return the embedding vector of a text, of unit length. See `Engine.embed`."""
        self._check_alive()
        if self.info.task != "embed":
            raise UnsupportedRequestError(
                "the base of this model generates text and computes no embeddings; "
                "use an embedding model, which an operator can serve with engine.runner: pooling",
                "model",
            )
        most = self._core.at_once * EMBEDDINGS_PER_SEQUENCE
        if self._embedding >= most:
            raise EngineBusyError(
                f"the server is embedding {most} texts already, its maximum; retry shortly", 1.0
            )
        self.residents.take(request.adapter_mix)
        self._embedding += 1
        try:
            return await self._embed(request)
        finally:
            self._embedding -= 1
            self.residents.give_back(request.adapter_mix)

    async def load(self, adapter: Adapter) -> None:
        """Load `adapter` into a slot of the engine, and test it. See `Engine.load`.

        Reads and checks the adapter's files in a worker thread, then generates one token with it.
        """
        self._check_alive()
        await self.residents.load(adapter)

    async def unload(self, digest: str, *, keep: bool = False) -> None:
        """Unload the adapter `digest` once no request uses it. See `Engine.unload`.

        `keep` is ignored, since vLLM's adapter slots are in host memory already.
        """
        self._check_alive()
        await self.residents.unload(digest)

    def state(self) -> EngineState:
        """Return a snapshot of the engine's state. See `Engine.state`."""
        if not self._started or self._dead is not None or not self._core.alive:
            return EngineState(alive=False, progress=0.0)
        running, waiting = Counter[str](), Counter[str]()
        for stream in self._admission:
            work = stream.work
            (waiting if work.scheduled is None else running)[work.request.share] += 1
        load = self._core.load()
        return EngineState(
            alive=True,
            progress=time.perf_counter() - self._last_step if self._running else 0.0,
            slowest_step=self._slowest_step,
            running=running,
            waiting=waiting,
            kv_tokens=round(load.kv_usage * load.kv_capacity),
            kv_capacity=load.kv_capacity,
            prefix_queries=load.prefix_queries,
            prefix_hits=load.prefix_hits,
            preemptions=load.preemptions,
            unread=self._admission.unread.dropped,
            resident=dict.fromkeys(self.residents.open, "device"),
        )

    def fail(self, reason: str) -> None:
        """Mark the engine as dead, and end all its answers. See `Engine.fail`."""
        self.on_death(reason)

    async def close(self) -> None:
        """Abort running requests, and release everything that the engine holds. See `Engine.close`."""
        self.on_death("the server is shutting down")
        for task in self._tasks:
            task.cancel()
        await self._core.close()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._copies.cleanup()

    # `Listener`: events of the core.

    def heard(self, work: CoreRequest, events: Sequence[StepEvent], *, finished: bool) -> None:
        """Pass the tokens that a step generated for a request to the stream of its answer."""
        stream = self._running.get(work.core_id)
        if stream is None:  # it was given up meanwhile
            return
        for event in events:
            stream.feed(event)
        self._front.served(work.core_id, len(events))
        if finished and self._running.pop(work.core_id, None) is not None:  # else dropped by `feed`
            # Before the client has read the answer: slow clients must not block others.
            self._admission.release(stream)
            self._front.leave(work.core_id)

    def gave_up(self, work: CoreRequest, error: EngineError) -> None:
        """End a request's answer with `error`, because the core has given up the request."""
        stream = self._running.pop(work.core_id, None)
        if stream is not None:
            stream.fail(error)
            self._admission.release(stream)
            self._front.leave(work.core_id)

    def on_step(self, batch: int) -> None:
        """Record that an engine step has ended, and how long it took."""
        now = time.perf_counter()
        if batch:
            self._slowest_step = max(self._slowest_step, now - self._last_step)
        if self._observer is not None and batch:
            self._observer.step(now - self._last_step, batch)
        self._last_step = now

    def on_death(self, why: str) -> None:
        """End every running and waiting answer with an error, because the core has died."""
        if self._dead is None:
            self._dead = why
            self._running.clear()
            self._front.clear()
            self._admission.fail_all(EngineDeadError(why))
            self.residents.abandon()

    # Requests.

    async def _open(self, request: GenerationRequest, *, probe: bool = False) -> DeltaStream:
        self._check_alive()
        if not probe:
            self._admission.check_room(request)
        self._check(request)
        core_id = f"{request.request_id}-{next(self._names)}"
        work = CoreRequest(request, core_id, time.perf_counter())
        stream = self._admission.admit(work, probe=probe)

        def enter() -> None:
            self._spawn(self._send_in_turn(stream, work))

        turn = FrontTurn(core_id, request.fair_share, len(request.prompt), enter)
        if probe or self._front.add(turn):
            await self._send(stream, work)
        return stream

    async def _send_in_turn(self, stream: DeltaStream, work: CoreRequest) -> None:
        """Send a request that has waited in the queue to the core. An error is raised to the reader of the
        request's answer.
        """
        if stream is not self._admission.get(work.request.request_id):  # it was given up meanwhile
            return
        try:
            self._check_alive()
            await self._send(stream, work)
        except EngineError as error:
            stream.fail(error)
        except Exception:
            log.exception(
                "request %s failed, because passing it to vLLM raised an unexpected error",
                work.request.request_id,
            )
            stream.fail(EngineError("the engine failed during this request; the server's log has the reason"))

    async def _send(self, stream: DeltaStream, work: CoreRequest) -> None:
        if not self._running:
            self._last_step = time.perf_counter()
        self._running[work.core_id] = stream
        try:
            await self._core.add(work, self._number(work.request.adapter_mix))
        except BaseException:
            self._close(stream)
            raise

    def _check(self, request: GenerationRequest) -> None:
        if self.info.task != "generate":
            raise UnsupportedRequestError(
                "the base of this model computes embeddings and cannot generate text; "
                "use a model that generates text",
                "model",
            )
        if len(request.adapter_mix) > 1 or any(weight != 1.0 for _, weight in request.adapter_mix):
            raise UnsupportedRequestError(
                "the vLLM engine cannot blend adapters; name a single adapter, without a weight", "model"
            )
        sampling = request.sampling
        for name, given in (("min_tokens", sampling.min_tokens), ("ignore_eos", sampling.ignore_eos)):
            if sampling.grammar and given:
                raise UnsupportedRequestError(
                    f"the vLLM engine does not support {name} together with a grammar; remove one of them",
                    name,
                )
        check_fits(request, self.info, self._core.load().kv_capacity or self.info.context)

    def _close(self, stream: DeltaStream) -> None:
        """Release the queue place of an answer's request. If the request still runs in vLLM's core,
        abort it.
        """
        stream.discard()
        self._admission.release(stream)
        work = stream.work
        assert isinstance(work, CoreRequest)
        if self._running.pop(work.core_id, None) is not None and self._dead is None:
            self._aborts.append(work.core_id)
            if len(self._aborts) == 1:
                self._spawn(self._send_aborts())
        self._front.leave(work.core_id)

    async def _send_aborts(self) -> None:
        core_ids, self._aborts = self._aborts, []
        if core_ids:
            await self._core.abort(core_ids)

    async def _embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        values = await self._core.embed(request, self._number(request.adapter_mix))
        length = math.sqrt(sum(value * value for value in values)) or 1.0
        return tuple(value / length for value in values)

    # Adapters.

    def _number(self, adapter_mix: Sequence[tuple[str, float]]) -> int | None:
        return self._numbers[adapter_mix[0][0]] if adapter_mix else None

    async def _bring_in(self, adapter: Adapter) -> None:
        self._check_alive()
        number = next(self._adapter_numbers)
        folder = self._folder(number)

        def copy() -> None:
            # Not earlier: vLLM also serves bases for which no adapter can be read.
            shape = ModelShape.read(self._base)
            weights = read_adapter(adapter.path, shape, digest=adapter.digest, hashes=self.hashes)
            rank = max(low.rank for low in weights.modules.values())
            if rank > self._core.max_rank:
                raise ValueError(
                    f"the adapter's rank is {rank}, but vLLM was started for ranks up to "
                    f"{self._core.max_rank}; set max_lora_rank to {rank} or more and restart the server"
                )
            write_plain(weights, folder)

        await asyncio.to_thread(copy)
        self._numbers[adapter.digest] = number
        await self._core.add_adapter(number, adapter.digest, folder)
        await self._probe(adapter.digest)

    async def _probe(self, digest: str) -> None:
        """Test an adapter before requests can use it: generate one token, or embed one text."""
        request = probe_of(digest, self._tokenizer.bos_id)
        if self.info.task == "embed":
            text = EmbeddingRequest(
                request_id=request.request_id, prompt=request.prompt, adapter_mix=request.adapter_mix
            )
            await self._embed(text)
            return
        stream = await self._open(request, probe=True)
        try:
            while not stream.done:
                await stream.next()
        finally:
            self._close(stream)

    def _drop(self, digest: str) -> asyncio.Future[None]:
        self._front.forget(digest)
        return self._spawn(self._remove(self._numbers.pop(digest, None)))

    async def _remove(self, number: int | None) -> None:
        if number is None:
            return
        self._check_alive()
        await self._send_aborts()
        await self._core.remove_adapter(number)
        await asyncio.to_thread(shutil.rmtree, self._folder(number), ignore_errors=True)

    def _folder(self, number: int) -> Path:
        return Path(self._copies.name) / str(number)

    def _check_alive(self) -> None:
        if not self._started or self._dead is not None or not self._core.alive:
            raise EngineDeadError(self._dead or "the vLLM engine is not running and takes no requests")

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task
