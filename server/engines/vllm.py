"""vLLM as an engine: the only module that imports it.

`AsyncLLM` starts and ends vLLM's engine core and carries adapters to it. Requests and tokens go to and from
the core directly: text, stop strings and streams are made by the same code for every engine, and what vLLM's
own front would compute a second time is not computed.
"""

# vLLM is not installed where types are checked, so everything of its is unknown there.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import asyncio
import dataclasses
import functools
import itertools
import logging
import math
import re
import shutil
import tempfile
import time
import typing
from collections import Counter
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import vllm
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import enable_envs_cache
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
from vllm.outputs import PoolingRequestOutput
from vllm.pooling_params import PoolingParams
from vllm.sampling_params import RequestOutputKind, SamplingParams, StructuredOutputsParams
from vllm.v1.engine import (
    EngineCoreEventType,
    EngineCoreOutput,
    EngineCoreOutputs,
    EngineCoreRequest,
    FinishReason,
)
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.exceptions import EngineDeadError as CoreDeadError
from vllm.v1.metrics.stats import IterationStats, LoRARequestStates, RequestStateStats

from adapters.manifest import Adapter
from adapters.plain import write_plain
from adapters.weights import ModelShape, read_adapter
from server.engines.base import (
    EngineBusyError,
    EngineDeadError,
    EngineError,
    EngineInfo,
    EngineState,
    StepObserver,
    UnsupportedRequestError,
)
from server.engines.residents import Residents
from server.engines.stream import Event, Stream
from server.engines.streams import Streams, check_fits, probe_of
from server.engines.vllm_options import VllmOptions, engine_args
from server.request import Delta, EmbeddingRequest, GenerationRequest, Sampling, TokenLogprob
from server.tokens import Tokenizer

OLDEST, NEWEST = (0, 26), (0, 33)
"""Versions of vLLM whose engine core this module knows; the versions between them are supported too."""

WATCH_SECONDS = 0.2
"""How often the core's life is looked at; vLLM itself tells of its death only after cleaning up."""

log = logging.getLogger("oneseek.vllm")


def check_version(version: str) -> None:
    """Raise `EngineError` for a vLLM that is not supported."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or not OLDEST <= (int(match[1]), int(match[2])) <= NEWEST:
        raise EngineError(
            f"vLLM {version} is installed, but 0.{OLDEST[1]} to 0.{NEWEST[1]} are supported: "
            "pip install 'oneseek[vllm]', or start with --engine embedded"
        )


def vllm_engine(
    options: VllmOptions,
    base_digest: str,
    tokenizer: Tokenizer,
    adapters: Sequence[Adapter],
    *,
    observer: StepObserver | None = None,
) -> VllmEngine:
    """An engine for `options.base` with room for `adapters` and one more, not yet started.

    Raises `SettingsError` for an option that vLLM does not take, and `EngineError` for a base it cannot run.
    """
    check_version(vllm.__version__)
    known = {item.name: item.type for item in dataclasses.fields(AsyncEngineArgs)}
    args = engine_args(options, adapters, known)
    try:
        config = AsyncEngineArgs(**args).create_engine_config()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"vLLM does not take these options: {_in_brief(error)}") from error
    return VllmEngine(
        config,
        shape=ModelShape.read(options.base),
        tokenizer=tokenizer,
        base_digest=base_digest,
        max_queue=options.max_queue,
        log_stats=not args.get("disable_log_stats", False),
        observer=observer,
    )


class _Taken(asyncio.Queue[Any]):
    """Where the core's client puts outputs; each is taken at once, not a turn of the event loop later.

    An error, of the core or of `take`, stays for who waits at the queue.
    """

    def __init__(self, take: Callable[[EngineCoreOutputs], None]) -> None:
        super().__init__()
        self._take = take

    def put_nowait(self, item: Any) -> None:
        """Take an output, keep an error."""
        if isinstance(item, Exception):
            super().put_nowait(item)
        else:
            self._take(item)


@dataclass(slots=True, eq=False)
class Progress:
    """One request on its way through the core."""

    request: GenerationRequest
    core_id: str
    """Its name in the core; never used again, as a client's may be."""
    arrived: float
    scheduled: float | None = None
    cached: int = 0
    prefilling: bool = True
    prompt_logprobs: list[TokenLogprob] = field(default_factory=list[TokenLogprob])
    stats: RequestStateStats = field(default_factory=lambda: RequestStateStats(arrival_time=time.time()))


class VllmEngine:
    """One base in vLLM's engine core, with adapters as its LoRAs, each named by its digest."""

    def __init__(
        self,
        config: VllmConfig,
        *,
        shape: ModelShape,
        tokenizer: Tokenizer,
        base_digest: str,
        max_queue: int,
        log_stats: bool = True,
        observer: StepObserver | None = None,
    ) -> None:
        self._config = config
        self._shape = shape
        self._tokenizer = tokenizer
        self._log_stats = log_stats
        self._observer = observer
        lora = config.lora_config
        self._max_rank = 0 if lora is None else int(lora.max_lora_rank)
        self._info = EngineInfo(
            name="vllm",
            base_digest=base_digest,
            context=config.model_config.max_model_len,
            vocabulary=config.model_config.get_vocab_size(),
            blends=False,
            max_adapters=0 if lora is None else lora.max_cpu_loras or lora.max_loras,
            task="embed" if config.model_config.runner_type == "pooling" else "generate",
        )
        at_once = config.scheduler_config.max_num_seqs
        self._residents = Residents(self._info.max_adapters, self._bring_in, self._drop)
        self._streams = Streams(tokenizer, self._residents, at_once=at_once, most=at_once + max_queue)
        self._running: dict[str, Stream] = {}
        """By the core's names."""
        self._embedding = Counter[str]()
        self._names = itertools.count(1)
        self._lora_ids = itertools.count(1)
        self._loras: dict[str, LoRARequest] = {}
        self._lora_states = LoRARequestStates(log_stats)
        self._copies = tempfile.TemporaryDirectory(prefix="oneseek-adapters-")
        self._aborts: list[str] = []
        self._tasks: set[asyncio.Task[Any]] = set()
        self._llm: AsyncLLM | None = None
        self._dead: str | None = None
        self._last_step = time.perf_counter()
        self._usage = 0.0
        self._prefix_queries = self._prefix_hits = self._preemptions = 0

    @property
    def info(self) -> EngineInfo:
        """What never changes."""
        return self._info

    async def start(self) -> None:
        """Start the engine core: load the base, plan its memory, capture its graphs."""
        try:
            llm = await asyncio.to_thread(
                AsyncLLM.from_vllm_config, self._config, disable_log_stats=not self._log_stats
            )
        except Exception as error:
            raise EngineError(f"vLLM did not start: {_in_brief(error)}; its log above says more") from error
        enable_envs_cache()  # vLLM's counting reads the environment with every token
        if self._info.task == "generate":
            llm.engine_core.outputs_queue = _Taken(functools.partial(self._step, llm))
            self._spawn(self._follow(llm))
        self._llm = llm
        self._spawn(self._watch(llm))

    async def generate(self, request: GenerationRequest) -> AsyncGenerator[Delta, None]:
        """See `Engine.generate`."""
        stream = await self._open(request)
        try:
            while not stream.done:
                yield await stream.next()
        finally:
            self._close(stream)

    async def embed(self, request: EmbeddingRequest) -> tuple[float, ...]:
        """See `Engine.embed`."""
        llm = self._alive()
        if self._info.task != "embed":
            raise UnsupportedRequestError(
                "this base generates text; for embeddings serve one that makes them, "
                "with engine.runner: pooling",
                "model",
            )
        most = self._config.scheduler_config.max_num_seqs * 4
        if self._embedding.total() >= most:
            raise EngineBusyError(f"{most} texts are being embedded, the most this server takes", 1.0)
        self._residents.take(request.voice)
        self._embedding[request.request_id] += 1
        try:
            return await self._embed(llm, request)
        except CoreDeadError as error:
            raise EngineDeadError("the engine has stopped") from error
        except ValueError as error:
            field = "dimensions" if "dimension" in str(error) else "input"
            raise UnsupportedRequestError(_in_brief(error), field) from error
        finally:
            del self._embedding[request.request_id]
            self._residents.give_back(request.voice)

    async def load(self, adapter: Adapter) -> None:
        """See `Engine.load`. The files are read and checked in a worker thread; the probe is one token."""
        self._alive()
        await self._residents.load(adapter)

    async def unload(self, digest: str) -> None:
        """See `Engine.unload`."""
        self._alive()
        await self._residents.unload(digest)

    def state(self) -> EngineState:
        """See `Engine.state`."""
        llm = self._llm
        if llm is None or self._dead is not None or llm.errored:
            return EngineState(alive=False, progress=0.0)
        running, waiting = Counter[str](), Counter[str]()
        for stream in self._streams:
            work = stream.work
            (waiting if work.scheduled is None else running)[work.request.share] += 1
        cache = self._config.cache_config
        capacity = (cache.num_gpu_blocks or 0) * cache.block_size
        return EngineState(
            alive=True,
            progress=time.perf_counter() - self._last_step if self._running else 0.0,
            running=running,
            waiting=waiting,
            kv_tokens=round(self._usage * capacity),
            kv_capacity=capacity,
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            preemptions=self._preemptions,
            resident=dict.fromkeys(self._residents.open, "device"),
        )

    async def close(self) -> None:
        """See `Engine.close`."""
        self._die("the server is shutting down")
        for task in self._tasks:
            task.cancel()
        if self._llm is not None:
            await asyncio.to_thread(self._llm.shutdown)
        await asyncio.gather(*self._tasks, return_exceptions=True)
        self._copies.cleanup()

    # Requests, to the core and back.

    async def _open(self, request: GenerationRequest, *, probe: bool = False) -> Stream:
        llm = self._alive()
        if not probe:
            self._streams.check_room()
        if self._info.task != "generate":
            raise UnsupportedRequestError("this base makes embeddings, not text", "model")
        if len(request.voice) > 1 or any(weight != 1.0 for _, weight in request.voice):
            raise UnsupportedRequestError("this engine serves one adapter at a time, unweighted", "model")
        sampling = request.sampling
        for name, given in (("min_tokens", sampling.min_tokens), ("ignore_eos", sampling.ignore_eos)):
            if sampling.grammar and given:
                raise UnsupportedRequestError(f"this engine takes no {name} beside a grammar", name)
        check_fits(request, self._info, self._capacity)
        core_id = f"{request.request_id}-{next(self._names)}"
        stream = self._streams.admit(Progress(request, core_id, time.perf_counter()), probe=probe)
        self._running[core_id] = stream
        try:
            core_request = self._core_request(llm, request, core_id)
            self._last_step = time.perf_counter() if len(self._running) == 1 else self._last_step
            await llm.engine_core.add_request_async(core_request)
        except BaseException as error:
            self._close(stream)
            if isinstance(error, CoreDeadError):
                raise EngineDeadError("the engine has stopped") from error
            raise
        return stream

    def _core_request(self, llm: AsyncLLM, request: GenerationRequest, core_id: str) -> EngineCoreRequest:
        try:
            return llm.input_processor.process_inputs(
                core_id,
                {
                    "type": "token",
                    "prompt_token_ids": list(request.prompt),
                    "cache_salt": request.cache_salt or None,
                },
                _sampling(request.sampling, self._tokenizer.eos_ids),
                supported_tasks=("generate",),
                lora_request=self._loras[request.voice[0][0]] if request.voice else None,
            )
        except (VLLMValidationError, ValueError) as error:
            field = "grammar" if request.sampling.grammar else "body"
            raise UnsupportedRequestError(f"vLLM refuses the {field}: {_in_brief(error)}", field) from error

    def _close(self, stream: Stream) -> None:
        """Give back a stream's place; the core is told where it does not know that the stream has ended."""
        self._streams.release(stream)
        core_id = _progress(stream).core_id
        if self._running.pop(core_id, None) is None or self._dead is not None:
            return
        self._aborts.append(core_id)
        if len(self._aborts) == 1:
            self._spawn(self._send_aborts())

    async def _send_aborts(self) -> None:
        ids, self._aborts = self._aborts, []
        if self._llm is not None and ids:
            await self._llm.engine_core.abort_requests_async(ids)

    async def _follow(self, llm: AsyncLLM) -> None:
        """Have the core's outputs read, and taken by `_step`, until it dies."""
        try:
            while True:
                await llm.engine_core.get_output_async()
        except CoreDeadError:
            self._die("the engine has stopped")
        except Exception:
            log.exception("the engine's output cannot be read")
            self._die("the engine has failed")

    async def _watch(self, llm: AsyncLLM) -> None:
        while not llm.engine_core.resources.engine_dead:
            await asyncio.sleep(WATCH_SECONDS)
        self._die("the engine has stopped")

    def _step(self, llm: AsyncLLM, outputs: EngineCoreOutputs) -> None:
        now = time.perf_counter()
        logger = llm.logger_manager
        stats = IterationStats() if logger is not None and outputs.outputs else None
        for output in outputs.outputs:
            stream = self._running.get(output.request_id)
            if stream is None:  # it was given up meanwhile
                continue
            work = _progress(stream)
            if stats is not None:
                self._measure(stats, work, output, outputs.timestamp)
            self._note(work, output, now)
            self._feed(stream, work, output)
        scheduler = outputs.scheduler_stats
        if scheduler is not None:
            self._usage = scheduler.kv_cache_usage
            self._prefix_queries += scheduler.prefix_cache_stats.queries
            self._prefix_hits += scheduler.prefix_cache_stats.hits
        if logger is not None:
            logger.record(scheduler, stats, engine_idx=outputs.engine_index)
        if self._observer is not None and outputs.outputs:
            self._observer.step(now - self._last_step, len(outputs.outputs))
        self._last_step = now

    def _measure(
        self, stats: IterationStats, work: Progress, output: EngineCoreOutput, timestamp: float
    ) -> None:
        """Count for vLLM's own metrics, as its front does."""
        name = work.request.share or None
        stats.update_from_output(output, timestamp, work.prefilling, work.stats, self._lora_states, name)
        if output.finish_reason is not None:
            request = work.request
            stats.update_from_finished_request(
                output.finish_reason,
                request.request_id,
                len(request.prompt),
                request.sampling.max_tokens,
                work.stats,
            )
            self._lora_states.request_finished(output.request_id, name)

    def _note(self, work: Progress, output: EngineCoreOutput, now: float) -> None:
        for event in output.events or ():
            if event.type == EngineCoreEventType.PREEMPTED:
                self._preemptions += 1
            elif event.type == EngineCoreEventType.SCHEDULED and work.scheduled is None:
                work.scheduled = event.timestamp
        if work.prefilling:
            work.prefilling = False
            work.scheduled = work.scheduled or now
            if output.prefill_stats is not None:
                work.cached = output.prefill_stats.num_cached_tokens

    def _feed(self, stream: Stream, work: Progress, output: EngineCoreOutput) -> None:
        sampling = work.request.sampling
        if output.new_prompt_logprobs_tensors is not None and sampling.prompt_logprobs is not None:
            ids, scores, *_ = output.new_prompt_logprobs_tensors
            work.prompt_logprobs += _scored(ids.tolist(), scores.tolist(), sampling.prompt_logprobs)
        finish = output.finish_reason
        if finish in (FinishReason.ABORT, FinishReason.ERROR):
            stream.fail(EngineError("the engine gave up this request; it may be sent again"))
        else:
            self._feed_tokens(stream, work, output)
        if finish is not None:
            # Now, not when it has been read: a client that stalls holds up nobody.
            del self._running[output.request_id]
            self._streams.release(stream)

    def _feed_tokens(self, stream: Stream, work: Progress, output: EngineCoreOutput) -> None:
        sampling, finish, tokens = work.request.sampling, output.finish_reason, output.new_token_ids
        prompt = None
        if work.prompt_logprobs and tokens:
            prompt, work.prompt_logprobs = tuple(work.prompt_logprobs), []
        if sampling.max_tokens == 0:  # the core generates one token at least
            stream.feed(Event(None, None, prompt, "length"))
            return
        scores: list[TokenLogprob] = []
        if output.new_logprobs is not None and sampling.logprobs is not None:
            ids, values, *_ = output.new_logprobs
            scores = _scored(ids.tolist(), values.tolist(), sampling.logprobs)
        for index, token in enumerate(tokens):
            score = scores[index] if scores else None
            if finish is None or index < len(tokens) - 1:
                stream.feed(Event(token, score, prompt))
            else:
                reason = "length" if finish == FinishReason.LENGTH else "stop"
                stop = token if reason == "stop" and token in sampling.stop_token_ids else None
                stream.feed(Event(token, score, prompt, reason, stop))
            prompt = None
        if finish is not None and not tokens:
            stream.feed(Event(None, None, prompt, "length" if finish == FinishReason.LENGTH else "stop"))

    async def _embed(self, llm: AsyncLLM, request: EmbeddingRequest) -> tuple[float, ...]:
        prompt = {"type": "token", "prompt_token_ids": list(request.prompt)}
        params = PoolingParams(task="embed", dimensions=request.dimensions)
        lora = self._loras[request.voice[0][0]] if request.voice else None
        last: PoolingRequestOutput[Any] | None = None
        async for output in llm.encode(cast("Any", prompt), params, request.request_id, lora_request=lora):
            last = output
        assert last is not None
        values = cast("list[float]", last.outputs.data.tolist())
        length = math.sqrt(sum(value * value for value in values)) or 1.0
        return tuple(value / length for value in values)

    # Adapters.

    async def _bring_in(self, adapter: Adapter) -> None:
        llm, digest, number = self._alive(), adapter.digest, next(self._lora_ids)
        folder = Path(self._copies.name) / str(number)

        def copy() -> None:
            weights = read_adapter(adapter.path, self._shape, self._max_rank, digest=digest)
            write_plain(weights, folder)

        await asyncio.to_thread(copy)
        lora = LoRARequest(lora_name=digest, lora_int_id=number, lora_path=str(folder))
        self._loras[digest] = lora
        try:
            await llm.add_lora(lora)
        except CoreDeadError as error:
            raise EngineDeadError("the engine has stopped") from error
        except Exception as error:
            raise EngineError(_in_brief(error)) from error
        await self._probe(llm, digest)

    async def _probe(self, llm: AsyncLLM, digest: str) -> None:
        """One token, or one vector, with the adapter, before any traffic."""
        request = probe_of(digest, self._tokenizer.bos_id)
        if self._info.task == "embed":
            text = EmbeddingRequest(request_id=request.request_id, prompt=request.prompt, voice=request.voice)
            await self._embed(llm, text)
            return
        stream = await self._open(request, probe=True)
        try:
            while not stream.done:
                await stream.next()
        finally:
            self._close(stream)

    def _drop(self, digest: str) -> asyncio.Future[None]:
        return self._spawn(self._remove(self._loras.pop(digest, None)))

    async def _remove(self, lora: LoRARequest | None) -> None:
        """Have the core forget an adapter, and look that it has: a step under way may bring it back."""
        if lora is None:
            return
        llm = self._alive()
        await self._send_aborts()
        try:
            while lora.lora_int_id in await llm.list_loras():
                await llm.remove_lora(lora.lora_int_id)
        except CoreDeadError as error:
            raise EngineDeadError("the engine has stopped") from error
        await asyncio.to_thread(shutil.rmtree, lora.lora_path, ignore_errors=True)

    # Life and death.

    @property
    def _capacity(self) -> int:
        cache = self._config.cache_config
        return (cache.num_gpu_blocks or 0) * cache.block_size or self._info.context

    def _alive(self) -> AsyncLLM:
        if self._llm is None or self._dead is not None or self._llm.engine_core.resources.engine_dead:
            raise EngineDeadError(self._dead or "the engine is not running")
        return self._llm

    def _die(self, why: str) -> None:
        if self._dead is None:
            self._dead = why
            self._running.clear()
            self._streams.fail_all(EngineDeadError(why))
            self._residents.abandon()

    def _spawn(self, work: typing.Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _progress(stream: Stream) -> Progress:
    work = stream.work
    assert isinstance(work, Progress)
    return work


def _sampling(sampling: Sampling, eos_ids: frozenset[int]) -> SamplingParams:
    """vLLM's parameters; stop strings and text are made outside of it."""
    most = max(1, sampling.max_tokens)
    stops = sampling.stop_token_ids if sampling.ignore_eos else {*sampling.stop_token_ids, *eos_ids}
    return SamplingParams(
        max_tokens=most,
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        min_p=sampling.min_p,
        repetition_penalty=sampling.repetition_penalty,
        presence_penalty=sampling.presence_penalty,
        frequency_penalty=sampling.frequency_penalty,
        logit_bias=dict(sampling.logit_bias) or None,
        seed=sampling.seed,
        min_tokens=min(sampling.min_tokens, most),
        ignore_eos=sampling.ignore_eos,
        stop_token_ids=sorted(stops),
        logprobs=sampling.logprobs,
        prompt_logprobs=sampling.prompt_logprobs,
        structured_outputs=StructuredOutputsParams(grammar=sampling.grammar) if sampling.grammar else None,
        detokenize=False,
        output_kind=RequestOutputKind.DELTA,
        skip_clone=True,
    )


def _scored(ids: list[list[int]], scores: list[list[float]], most: int) -> list[TokenLogprob]:
    """Rows of (the token itself, then the likeliest ones) as log probabilities with `most` alternatives."""
    return [
        TokenLogprob(row[0], values[0], tuple(zip(row[1 : most + 1], values[1 : most + 1], strict=True)))
        for row, values in zip(ids, scores, strict=True)
    ]


def _in_brief(error: BaseException) -> str:
    """The error's message on one line, without a traceback that came with it from another process."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines and "Traceback" in str(error) else " ".join(lines)
    return (text or type(error).__name__)[:500]
