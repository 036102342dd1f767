"""Implements `Core` with vLLM's engine core. This is the only module that imports vllm.

`AsyncLLM` starts and stops the core and loads adapters. Requests and tokens are exchanged with the core
directly, without vLLM's front end: OneSeek decodes text, finds stop strings and streams with the same code
for every engine.
"""

# vLLM is not installed where types are checked, so its types are unknown there.
# pyright: basic, reportMissingImports=false, reportAttributeAccessIssue=false

from __future__ import annotations

import asyncio
import dataclasses
import functools
import logging
import re
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import vllm
from vllm.config import VllmConfig
from vllm.engine.arg_utils import AsyncEngineArgs
from vllm.envs import enable_envs_cache
from vllm.exceptions import VLLMValidationError
from vllm.lora.request import LoRARequest
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

from adapters.lora.manifest import Adapter
from server.engines.base import StepObserver
from server.engines.shared.stream import StepEvent
from server.engines.vllm.engine import CoreEngine
from server.engines.vllm.logprobs import read_logprobs
from server.engines.vllm.options import VllmOptions, engine_args
from server.engines.vllm.protocol import CoreLoad, CoreRequest, Listener
from server.errors import EngineDeadError, EngineError, UnsupportedRequestError
from server.metrics.engine_state import EngineInfo
from server.request import EmbeddingRequest, Sampling, TokenLogprob
from server.text.tokenizer import Tokenizer

OLDEST, NEWEST = (0, 26), (0, 33)
"""Oldest and newest supported minor version of vLLM, both included."""

WATCH_SECONDS = 0.2
"""Seconds between two checks whether the core is alive. vLLM reports its death only after cleaning up."""
GONE = "vLLM's engine core has stopped; the server's log has the reason"

log = logging.getLogger("oneseek.vllm")


def check_version(version: str) -> None:
    """Raise `EngineError` if this version of vLLM is not supported."""
    match = re.match(r"(\d+)\.(\d+)", version)
    if match is None or not OLDEST <= (int(match[1]), int(match[2])) <= NEWEST:
        raise EngineError(
            f"vLLM {version} is installed, but only 0.{OLDEST[1]} to 0.{NEWEST[1]} are supported; "
            "run pip install 'oneseek[vllm]', or start with --engine embedded"
        )


def vllm_engine(
    options: VllmOptions,
    base_digest: str,
    tokenizer: Tokenizer,
    adapters: Sequence[Adapter],
    *,
    observer: StepObserver | None = None,
) -> CoreEngine:
    """Create an engine for `options.base`, not started, with slots for `adapters` and one more.

    Raises `SettingsError` for an option that vLLM does not accept, `EngineError` for a base it cannot run.
    """
    check_version(vllm.__version__)
    known = {item.name: item.type for item in dataclasses.fields(AsyncEngineArgs)}
    args = engine_args(options, adapters, known)
    try:
        config = AsyncEngineArgs(**args).create_engine_config()
    except (ImportError, OSError, RuntimeError, TypeError, ValueError) as error:
        raise EngineError(f"vLLM rejects the base or the options under engine: {_in_brief(error)}") from error
    core = VllmCore(
        config, base_digest, tokenizer.eos_ids, log_stats=not args.get("disable_log_stats", False)
    )
    return CoreEngine(
        core, base=options.base, tokenizer=tokenizer, max_queue=options.max_queue, observer=observer
    )


class _Taken(asyncio.Queue[Any]):
    """Replaces the queue of vLLM's outputs: passes each output to `take` at once instead of queueing it.

    Errors are queued, for the task that waits for the next output.
    """

    def __init__(self, take: Callable[[EngineCoreOutputs], None]) -> None:
        super().__init__()
        self._take = take

    def put_nowait(self, item: Any) -> None:
        """Pass an output of the core to `take`, or queue an error."""
        if isinstance(item, Exception):
            super().put_nowait(item)
        else:
            self._take(item)


class VllmCore:
    """Runs a base in vLLM's engine core. Adapters are LoRAs of vLLM, named by their digests."""

    def __init__(
        self, config: VllmConfig, base_digest: str, eos_ids: frozenset[int], *, log_stats: bool
    ) -> None:
        self._config = config
        self._eos_ids = eos_ids
        self._log_stats = log_stats
        lora = config.lora_config
        self.max_rank = 0 if lora is None else int(lora.max_lora_rank)
        self.at_once: int = config.scheduler_config.max_num_seqs
        self.info = EngineInfo(
            name="vllm",
            base_digest=base_digest,
            context=config.model_config.max_model_len,
            vocabulary=config.model_config.get_vocab_size(),
            blends=False,
            max_adapters=0 if lora is None else lora.max_cpu_loras or lora.max_loras,
            at_once=0 if lora is None else lora.max_loras,
            task="embed" if config.model_config.runner_type == "pooling" else "generate",
        )
        self._works: dict[str, tuple[CoreRequest, RequestStateStats]] = {}
        self._loras: dict[int, LoRARequest] = {}
        self._lora_states = LoRARequestStates(log_stats)
        self._llm: AsyncLLM | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._usage = 0.0
        self._prefix_queries = self._prefix_hits = self._preemptions = 0

    @property
    def alive(self) -> bool:
        """True if the engine core's process runs. See `Core.alive`."""
        return self._llm is not None and not self._llm.engine_core.resources.engine_dead

    def load(self) -> CoreLoad:
        """Return the use of the KV cache and the counts of prefix hits and preemptions. See `Core.load`."""
        cache = self._config.cache_config
        return CoreLoad(
            kv_usage=self._usage,
            kv_capacity=max(0, (cache.num_gpu_blocks or 0) - 1) * cache.block_size,  # one stays unused
            prefix_queries=self._prefix_queries,
            prefix_hits=self._prefix_hits,
            preemptions=self._preemptions,
        )

    async def start(self, listener: Listener) -> None:
        """Start the engine core, which loads the base, plans its memory and captures CUDA graphs."""
        try:
            llm = await asyncio.to_thread(
                AsyncLLM.from_vllm_config, self._config, disable_log_stats=not self._log_stats
            )
        except Exception as error:
            raise EngineError(f"vLLM did not start: {_in_brief(error)}; see vLLM's log above") from error
        enable_envs_cache()  # otherwise vLLM's metrics read the environment for every token
        self._llm = llm
        if self.info.task == "generate":
            llm.engine_core.outputs_queue = _Taken(functools.partial(self._step, llm, listener))
            self._tasks.append(asyncio.create_task(self._follow(llm, listener)))
        self._tasks.append(asyncio.create_task(self._watch(listener)))

    async def close(self) -> None:
        """End the engine core's process. See `Core.close`."""
        for task in self._tasks:
            task.cancel()
        if self._llm is not None:
            await asyncio.to_thread(self._llm.shutdown)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def add(self, work: CoreRequest, adapter: int | None) -> None:
        """Send a request to the core, with the number of its adapter. See `Core.add`."""
        llm = self._running()
        request = self._core_request(llm, work, adapter)
        self._works[work.core_id] = work, RequestStateStats(arrival_time=time.time())
        try:
            await llm.engine_core.add_request_async(request)
        except CoreDeadError as error:
            raise EngineDeadError(GONE) from error

    async def abort(self, core_ids: Sequence[str]) -> None:
        """Abort the requests with these ids in the core. See `Core.abort`."""
        for core_id in core_ids:
            self._works.pop(core_id, None)
        if self.alive:
            await self._running().engine_core.abort_requests_async(list(core_ids))

    async def embed(self, request: EmbeddingRequest, adapter: int | None) -> Sequence[float]:
        """Return the embedding vector of a text. See `Core.embed`."""
        prompt: Any = {"type": "token", "prompt_token_ids": list(request.prompt)}
        params = PoolingParams(task="embed", dimensions=request.dimensions)
        lora = None if adapter is None else self._loras[adapter]
        values: Sequence[float] = ()
        try:
            outputs = self._running().encode(prompt, params, request.request_id, lora_request=lora)
            async for output in outputs:
                values = output.outputs.data.tolist()
        except CoreDeadError as error:
            raise EngineDeadError(GONE) from error
        except (VLLMValidationError, ValueError) as error:
            field = "dimensions" if "dimension" in str(error) else "input"
            raise UnsupportedRequestError(_in_brief(error), field) from error
        return values

    async def add_adapter(self, number: int, digest: str, folder: Path) -> None:
        """Load the adapter in `folder` under a number never used before. See `Core.add_adapter`."""
        lora = self._loras[number] = LoRARequest(lora_name=digest, lora_int_id=number, lora_path=str(folder))
        try:
            await self._running().add_lora(lora)
        except CoreDeadError as error:
            raise EngineDeadError(GONE) from error
        except Exception as error:
            raise EngineError(_in_brief(error)) from error

    async def remove_adapter(self, number: int) -> None:
        """Remove an adapter. Repeats until it is gone, since a running step may load the adapter again."""
        llm = self._running()
        self._loras.pop(number, None)
        try:
            while number in await llm.list_loras():
                await llm.remove_lora(number)
        except CoreDeadError as error:
            raise EngineDeadError(GONE) from error

    def _running(self) -> AsyncLLM:
        if self._llm is None or not self.alive:
            raise EngineDeadError(GONE)
        return self._llm

    def _core_request(self, llm: AsyncLLM, work: CoreRequest, adapter: int | None) -> EngineCoreRequest:
        request = work.request
        prompt = {
            "type": "token",
            "prompt_token_ids": list(request.prompt),
            "cache_salt": request.cache_salt or None,
        }
        try:
            return llm.input_processor.process_inputs(
                work.core_id,
                prompt,
                _sampling(request.sampling, self._eos_ids),
                supported_tasks=("generate",),
                lora_request=None if adapter is None else self._loras[adapter],
            )
        except (VLLMValidationError, ValueError) as error:
            field = "grammar" if request.sampling.grammar else "body"
            raise UnsupportedRequestError(f"vLLM rejects this {field}: {_in_brief(error)}", field) from error

    async def _follow(self, llm: AsyncLLM, listener: Listener) -> None:
        """Keep the task running in which vLLM passes the core's outputs to `_step`, until the core dies."""
        try:
            while True:
                await llm.engine_core.get_output_async()
        except CoreDeadError:
            listener.on_death(GONE)
        except Exception:
            log.exception(
                "the engine stops and its requests fail, as reading vLLM's output raised an unexpected error"
            )
            listener.on_death("the engine has failed; the server's log has the reason")

    async def _watch(self, listener: Listener) -> None:
        while self.alive:
            await asyncio.sleep(WATCH_SECONDS)
        listener.on_death(GONE)

    def _step(self, llm: AsyncLLM, listener: Listener, outputs: EngineCoreOutputs) -> None:
        now, logger = time.perf_counter(), llm.logger_manager
        stats = IterationStats() if logger is not None and outputs.outputs else None
        for output in outputs.outputs:
            found = self._works.get(output.request_id)
            if found is None:  # it was aborted meanwhile
                continue
            work, own = found
            if stats is not None:
                self._measure(stats, work, own, output, outputs.timestamp)
            self._note(work, output, now)
            if output.finish_reason in (FinishReason.ABORT, FinishReason.ERROR):
                listener.gave_up(work, EngineError("the engine aborted this request; send the request again"))
            else:
                listener.heard(work, _events(work, output), finished=output.finish_reason is not None)
            if output.finish_reason is not None:
                self._works.pop(output.request_id, None)
        scheduler = outputs.scheduler_stats
        if scheduler is not None:
            self._usage = scheduler.kv_cache_usage
            self._prefix_queries += scheduler.prefix_cache_stats.queries
            self._prefix_hits += scheduler.prefix_cache_stats.hits
        if logger is not None:
            logger.record(scheduler, stats, engine_idx=outputs.engine_index)
        listener.on_step(len(outputs.outputs))

    def _measure(
        self,
        stats: IterationStats,
        work: CoreRequest,
        own: RequestStateStats,
        output: EngineCoreOutput,
        timestamp: float,
    ) -> None:
        """Update vLLM's own metrics for one output, as the front end of vLLM does if it is used."""
        request, name = work.request, work.request.share or None
        stats.update_from_output(output, timestamp, work.prefilling, own, self._lora_states, name)
        if output.finish_reason is not None:
            most = request.sampling.max_tokens
            stats.update_from_finished_request(
                output.finish_reason, request.request_id, len(request.prompt), most, own
            )
            self._lora_states.request_finished(output.request_id, name)

    def _note(self, work: CoreRequest, output: EngineCoreOutput, now: float) -> None:
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


def _events(work: CoreRequest, output: EngineCoreOutput) -> list[StepEvent]:
    sampling, finish, tokens = work.request.sampling, output.finish_reason, output.new_token_ids
    if output.new_prompt_logprobs_tensors is not None and sampling.prompt_logprobs is not None:
        ids, scores, ranks, *_ = output.new_prompt_logprobs_tensors
        most = sampling.prompt_logprobs
        work.prompt_logprobs += read_logprobs(ids.tolist(), scores.tolist(), ranks.tolist(), most)
    prompt = None
    if work.prompt_logprobs and tokens:
        prompt, work.prompt_logprobs = tuple(work.prompt_logprobs), []
    reason = None if finish is None else "length" if finish == FinishReason.LENGTH else "stop"
    if sampling.max_tokens == 0:  # the core generates at least one token
        return [StepEvent(None, None, prompt, "length")]
    if not tokens:
        return [] if reason is None else [StepEvent(None, None, prompt, reason)]
    scored: Sequence[TokenLogprob | None] = (None,) * len(tokens)
    if output.new_logprobs is not None and sampling.logprobs is not None:
        ids, scores, ranks, *_ = output.new_logprobs
        scored = read_logprobs(ids.tolist(), scores.tolist(), ranks.tolist(), sampling.logprobs)
    last = tokens[-1]
    events = [StepEvent(token, score) for token, score in zip(tokens[:-1], scored[:-1], strict=True)]
    stop = last if reason == "stop" and last in sampling.stop_token_ids else None
    events.append(StepEvent(last, scored[-1], None, reason, stop))
    if prompt is not None:
        first = events[0]
        events[0] = StepEvent(first.token_id, first.logprob, prompt, first.finish_reason, first.stop_reason)
    return events


def _sampling(sampling: Sampling, eos_ids: frozenset[int]) -> SamplingParams:
    """Convert to vLLM's sampling parameters, without stop strings and detokenization: OneSeek does both."""
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


def _in_brief(error: BaseException) -> str:
    """Return an error's message on one line of at most 500 characters, without any traceback."""
    lines = [line for line in str(error).splitlines() if line.strip()]
    text = lines[-1] if lines and "Traceback" in str(error) else " ".join(lines)
    return (text or type(error).__name__)[:500]
