"""Answers a request step by step: question → route (chosen adapter) → adapter digests → tokens → engine →
deltas (pieces of the answer).

Every endpoint uses `Generation`; no endpoint calls the router, the registry or the engine itself.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.snapshot import Snapshot
from routing.route import Route, RouteQuery, UnknownNameError
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    AdapterUnknownError,
    EngineBusyError,
    UnreadAnswerError,
    UnsupportedRequestError,
    context_exceeded,
)
from server.exchange import AnswerRecord, Exchange
from server.grammar.service import Grammars
from server.live.runtime import Runtime
from server.metrics.engine_state import Task
from server.metrics.metrics import Meter
from server.request import Delta, Deltas, GenerationRequest, Sampling
from server.rollout.measuring import measure_answer
from server.rollout.rollouts import Rollouts
from server.rollout.shadows import Shadows
from server.rollout.trials import ChosenVersion
from server.serving.fan_in import merge_streams
from server.serving.gate import Gate
from server.serving.kept import end_record, keep_content
from server.serving.one_thread import OneThread
from server.serving.resolution import Resolution, resolve_route
from server.serving.routes import RememberedRoutes
from server.serving.sizes import INLINE_CHARACTERS, count_characters, is_short, longest_token
from server.text.chat_template import NO_ARGUMENTS, Message
from server.text.tokenizer import Tool

__all__ = ["Generation", "Resolution"]

READING_BYTES = 4
"""Cost of language detection: reading one character takes as long as parsing this many bytes of a request."""


@dataclass(frozen=True, slots=True)
class Decision:
    """The decision which adapter answers a question. No queue place is reserved, no adapter loaded yet."""

    resolution: Resolution
    parts: Sequence[tuple[Adapter, float]]
    """Adapters of the route, with their weights. For an alias whose requests are divided between versions,
    this is the active version.
    """


class Generation:
    """Routes, tokenizes and generates with one base model, for every endpoint."""

    def __init__(self, runtime: Runtime, rollouts: Rollouts, shadows: Shadows, aside: OneThread) -> None:
        self._runtime = runtime
        self._rollouts = rollouts
        self._shadows = shadows
        self.gate = Gate(runtime)
        self.grammars = Grammars(runtime.tokenizer)
        self.aside = aside
        """Runs work whose time grows with a request's size in the worker thread that all bases share."""
        self._routes = RememberedRoutes()
        self._longest: int | None = None

    def check_task(self, task: Task) -> None:
        """Raise `UnsupportedRequestError` unless the base is served for `task` (generate or embed)."""
        if self._runtime.info.task == task:
            return
        raise UnsupportedRequestError(
            "This base generates text, not embeddings. For embeddings, serve an embedding model on the "
            "engine "
            "vllm."
            if task == "embed"
            else "This base makes embeddings, not text. Use /v1/embeddings.",
            "model",
        )

    async def choose(
        self,
        exchange: Exchange,
        question: RouteQuery,
        places: int = 1,
        task: Task = "generate",
        route: Route | None = None,
    ) -> Resolution:
        """Decide which adapter answers, reserve `places` in the queue, load the adapter, and record the
        decision in `exchange`.

        `route` is the router's decision, if it has been made already. Loads a base that is loaded on demand.

        Raises `UnknownNameError`, `SelectionError`, `UnsupportedRequestError`, `EngineBusyError`,
        `AdapterRefusedError`, `AdapterNotLoadedError`, `BaseNotLoadedError`.
        """
        while True:
            decision = await self.resolve(exchange, question, task, route)
            try:
                return await self.seat(exchange, decision, places)
            except AdapterUnknownError:
                # Its name is gone, so whoever asked for it is told so, and the rest goes elsewhere.
                if exchange.held is not None:
                    exchange.held.close()
                route = None

    async def seat(self, exchange: Exchange, decision: Decision, places: int) -> Resolution:
        """Reserve `places` in the queue, and load `decision`'s adapters. Raises the errors of `choose`."""
        self.tell(exchange, decision.resolution)
        await self.ready()
        # Nothing may be awaited in between: these places are what keeps the base loaded.
        self.gate.hold(exchange, decision.resolution.share, places)
        return await self.bring_in(exchange, decision)

    async def ready(self) -> None:
        """Load the base if it is loaded on demand. Raises `BaseNotLoadedError`."""
        if self._runtime.on_demand is not None:
            await self._runtime.on_demand.ready()

    async def resolve(
        self,
        exchange: Exchange,
        question: RouteQuery,
        task: Task = "generate",
        route: Route | None = None,
    ) -> Decision:
        """Decide which adapter answers, without reserving or loading anything. Raises the errors of `choose`
        about names and unsupported requests.
        """
        self.check_task(task)
        started = time.perf_counter()
        exchange.parsed = exchange.parsed or started
        exchange.requested = question.header or question.model or ""
        try:
            names = self._runtime.served.snapshot
            decided = route is not None
            route = route or await self._decide(exchange, question, names)
            parts = names.weighted(route.target)
            divides = task == "generate" and (names.splits or names.shadows)
            chosen = self._chosen(exchange, question, route, names) if divides else None
            resolution = resolve_route(route, parts, self._runtime.info, self._runtime.name, chosen)
        except (UnknownNameError, UnknownAdapterError):
            exchange.adapter = "unknown"
            raise
        exchange.routed = time.perf_counter()
        if not decided:
            self._runtime.metrics.route_seconds.observe(exchange.routed - started)
        self._runtime.metrics.routes.labels(resolution.language, route.reason).inc()
        if route.detection is not None:
            self._runtime.metrics.confidence.observe(route.confidence)
        return Decision(resolution, parts)

    async def bring_in(self, exchange: Exchange, decision: Decision) -> Resolution:
        """Load the adapters of a decision. If a canary version cannot be loaded, the alias's active version
        answers instead.
        """
        resolution, chosen = decision.resolution, decision.resolution.chosen
        try:
            await self._bring_in(exchange, resolution.adapters)
        except asyncio.CancelledError:
            if chosen is not None and exchange.cancel_reason == "timeout":
                chosen.record_failure()
            raise
        except (AdapterNotLoadedError, AdapterRefusedError) as error:
            if chosen is None or not chosen.canary or isinstance(error, AdaptersBusyError):
                raise
            chosen.record_failure()
            info, name = self._runtime.info, self._runtime.name
            resolution = resolve_route(resolution.route, decision.parts, info, name)
            self.tell(exchange, resolution)
            await self._bring_in(exchange, resolution.adapters)
        return resolution

    async def _decide(self, exchange: Exchange, question: RouteQuery, names: Snapshot) -> Route:
        """Return the route (chosen adapter) for `question`. Long texts are read in a worker thread."""
        router = self._runtime.router
        if self._routes.remembers(question):
            return self._routes.decide(exchange.tenant, question, router, names)
        size = READING_BYTES * sum(map(len, question.turns))
        return await self.aside.run_sized(size, lambda: router.decide(question, names))

    async def _bring_in(self, exchange: Exchange, adapters: Sequence[Adapter]) -> None:
        """Load the adapters, and keep them loaded until the engine has begun the request's work."""
        if not adapters:
            return
        exchange.lease = lease = await self._runtime.residency.acquire(adapters)
        if lease.waited:
            exchange.receipt["X-OneSeek-Adapter-Wait"] = f"{lease.waited:.3f}"

    def _chosen(
        self, exchange: Exchange, question: RouteQuery, route: Route, names: Snapshot
    ) -> ChosenVersion | None:
        """Return the version that answers; None if the alias's requests are not divided between versions."""
        if len(route.target) != 1 or route.target[0][1] != 1.0:
            return None
        return self._rollouts.choose(names, route.target[0][0], (exchange.tenant, *question.opening))

    def tell(self, exchange: Exchange, resolution: Resolution) -> None:
        """Record in `exchange` and in the metrics which adapter answers."""
        exchange.adapter, exchange.version, exchange.language = (
            resolution.adapter,
            resolution.version,
            resolution.language,
        )
        exchange.base = self._runtime.name
        exchange.receipt |= resolution.receipt
        self._runtime.metrics.chosen(exchange)

    def check_name(self, exchange: Exchange, question: RouteQuery) -> None:
        """Raise `UnknownNameError` for a model name that is not served. Nothing is chosen or loaded."""
        try:
            self._runtime.router.decide(question, self._runtime.served.snapshot)
        except (UnknownNameError, UnknownAdapterError):
            exchange.adapter = "unknown"
            raise

    async def encode(self, text: str, field: str, add_special_tokens: bool = True) -> tuple[int, ...]:
        """Return the tokens of the raw prompt `text`. Raises `ApiError`, which names `field`, if the prompt
        cannot fit the context.
        """
        return await self._tokens(
            [text], field, lambda: self._runtime.tokenizer.encode(text, add_special_tokens)
        )

    async def decode(self, tokens: tuple[int, ...]) -> str:
        """Return the text of tokens, without special tokens."""
        if len(tokens) <= INLINE_CHARACTERS // 4:
            return self._runtime.tokenizer.decode(tokens)
        return await self.aside.run(lambda: self._runtime.tokenizer.decode(tokens))

    async def chat(
        self,
        messages: Sequence[Message],
        field: str = "messages",
        *,
        add_generation_prompt: bool = True,
        continue_final_message: bool = False,
        tools: Sequence[Tool] = (),
        arguments: Mapping[str, Any] = NO_ARGUMENTS,
    ) -> tuple[int, ...]:
        """Return the tokens of a conversation, by the base's chat template. Raises `ApiError` if it cannot
        fit the context, and `TemplateError`.
        """
        given = [*messages, *tools, *arguments.values()]
        return await self._tokens(
            given,
            field,
            lambda: self._runtime.tokenizer.chat(
                messages,
                add_generation_prompt=add_generation_prompt,
                continue_final_message=continue_final_message,
                tools=tools,
                arguments=arguments,
            ),
        )

    async def _tokens(
        self, texts: Sequence[object], field: str, work: Callable[[], Sequence[int]]
    ) -> tuple[int, ...]:
        """Return the tokens that `work` makes of `texts`. Short texts are tokenized at once, long ones in a
        worker thread, one request at a time.
        """
        if is_short(texts):
            return tuple(work())
        return await self.aside.run(lambda: self._fitting_tokens(texts, field, work))

    def _fitting_tokens(
        self, texts: Sequence[object], field: str, work: Callable[[], Sequence[int]]
    ) -> tuple[int, ...]:
        size = count_characters(list(texts))
        if self._longest is None:
            self._longest = longest_token(self._runtime.tokenizer)
        context = self._runtime.info.context
        # A normaliser may halve a text by composing its characters.
        if size > 2 * context * self._longest:
            raise context_exceeded(field, context, f"at least {size} characters, and therefore too many")
        return tuple(work())

    def generate(
        self,
        exchange: Exchange,
        resolution: Resolution,
        prompts: Sequence[tuple[int, ...]],
        samplings: Sequence[Sampling],
        n: int,
        continues: bool = False,
        whole: bool = False,
    ) -> Deltas:
        """Stream deltas (pieces) of `n` answers to each prompt, as they come. Answer `i` to prompt `p` has
        the index `p * n + i`.

        Closing the generator aborts the answers that are not complete. With a seed, the `n` answers differ
        from each other but are the same each time. For `continues` and `whole`, see `GenerationRequest`. The
        answers use the queue places that `choose` has reserved.
        """
        held = exchange.held.name if exchange.held is not None else ""
        exchange.sampling, exchange.choices = samplings[0], n
        if exchange.lease is not None:
            exchange.lease.expect(len(prompts) * n)
        sources: list[Deltas] = []
        for prompt, sampling in zip(prompts, samplings, strict=True):
            for choice in range(n):
                own = (
                    sampling
                    if sampling.seed is None or not choice
                    else replace(sampling, seed=sampling.seed + choice)
                )
                request = GenerationRequest(
                    request_id=uuid.uuid4().hex,
                    prompt=prompt,
                    sampling=own,
                    adapter_mix=resolution.adapter_mix,
                    cache_salt=exchange.tenant,
                    continues=continues,
                    share=resolution.share,
                    tenant=exchange.tenant,
                    reservation=held,
                    whole=whole,
                )
                deltas = self._deltas(len(sources), request, exchange, resolution)
                if resolution.chosen is not None and not sources:
                    deltas = measure_answer(deltas, resolution.chosen, request, exchange, self._shadows)
                sources.append(deltas)
        merged = sources[0] if len(sources) == 1 else merge_streams(sources)
        return merged if exchange.content is None else keep_content(merged, exchange.content)

    async def _deltas(
        self, index: int, request: GenerationRequest, exchange: Exchange, resolution: Resolution
    ) -> Deltas:
        metrics = self._runtime.metrics
        source: AsyncGenerator[Delta] | None = None
        meter: Meter | None = None
        delta: Delta | None = None
        reason = "error"
        exchange.generating = True
        record = AnswerRecord()
        exchange.answers.append(record)
        try:
            source, delta = await self._begin(request, resolution)
            record.first = time.perf_counter()
            if exchange.lease is not None:
                exchange.lease.begun()
            meter = metrics.meter(
                resolution.adapter, resolution.version, exchange.started, self._runtime.name
            )
            meter.delta(delta)
            yield [(index, delta)]
            async for delta in source:
                meter.delta(delta)
                yield [(index, delta)]
        except (GeneratorExit, asyncio.CancelledError):
            reason = exchange.cancel_reason
            raise
        except UnreadAnswerError:
            reason = "unread"
            raise
        except (AdapterNotLoadedError, EngineBusyError, UnsupportedRequestError):
            reason = ""
            raise
        finally:
            end_record(record, delta, meter)
            if meter is None and reason:
                metrics.cancelled.labels(reason).inc()
            if meter is not None and not meter.finished:
                meter.close(len(request.prompt), reason)
            if source is not None:
                await source.aclose()

    async def _begin(
        self, request: GenerationRequest, resolution: Resolution
    ) -> tuple[AsyncGenerator[Delta], Delta]:
        """Begin a generation, and return it with its first delta. If the adapter was unloaded in the
        meantime, load it again.
        """
        source = self._runtime.engine.generate(request)
        try:
            return source, await anext(source)
        except AdapterNotLoadedError:
            lease = await self._runtime.residency.acquire(resolution.adapters)
        try:
            source = self._runtime.engine.generate(request)
            return source, await anext(source)
        finally:
            lease.close()
