"""The one way of a request: question → route → digests → tokens → engine → deltas.

Every endpoint goes through `Generation`; none speaks to the router, the registry or the engine by itself.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

from adapters.errors import UnknownAdapterError
from adapters.lora.manifest import Adapter
from adapters.registry.snapshot import Snapshot
from routing.route import Route, RouteQuery, UnknownNameError
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
    AdaptersBusyError,
    EngineBusyError,
    UnreadAnswerError,
    UnsupportedRequestError,
    context_exceeded,
)
from server.exchange import Exchange
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
from server.serving.one_thread import OneThread
from server.serving.resolution import Resolution, resolve_route
from server.serving.routes import RememberedRoutes
from server.text.chat_template import NO_ARGUMENTS, Message
from server.text.tokenizer import Tokenizer, Tool

__all__ = ["Generation", "Resolution"]

INLINE_CHARACTERS = 1024
"""Texts up to this long are tokenised on the event loop, within a millisecond; longer ones in a thread."""
READING_BYTES = 4
"""Bytes of a request whose parsing takes as long as reading a character for its language."""
VALUE_CHARACTERS = 8
"""Characters that a value of a message or a tool counts for, beside its text."""


@dataclass(frozen=True, slots=True)
class Decision:
    """Who is to answer a question, before anything is held or loaded for it."""

    resolution: Resolution
    parts: Sequence[tuple[Adapter, float]]
    """The adapters that the route means; of a divided alias, those of its active version."""


class Generation:
    """Routes, tokenises and generates for every endpoint, on one runtime."""

    def __init__(self, runtime: Runtime, rollouts: Rollouts, shadows: Shadows, aside: OneThread) -> None:
        self._runtime = runtime
        self._rollouts = rollouts
        self._shadows = shadows
        self.gate = Gate(runtime)
        self.grammars = Grammars(runtime.tokenizer)
        self.aside = aside
        """Where everything that grows with a request is worked on; the same for every base."""
        self._routes = RememberedRoutes()
        self._longest: int | None = None

    def check_task(self, task: Task) -> None:
        """Raise `UnsupportedRequestError` unless the base is served for `task`."""
        if self._runtime.info.task == task:
            return
        if task == "embed":
            message = (
                "The base served here writes text; embeddings need one that makes them, on the vllm engine."
            )
        else:
            message = "The base served here makes embeddings and writes no text; ask /v1/embeddings."
        raise UnsupportedRequestError(message, "model")

    async def choose(
        self,
        exchange: Exchange,
        question: RouteQuery,
        places: int = 1,
        task: Task = "generate",
        route: Route | None = None,
    ) -> Resolution:
        """Decide who answers, hold `places` for it, make it resident, and put the receipt on the exchange.

        `route`: the decision, if it has been made. Loads a base that is loaded on demand.

        Raises `UnknownNameError`, `SelectionError`, `UnsupportedRequestError`, `EngineBusyError`,
        `AdapterRefusedError`, `AdapterNotLoadedError`, `BaseNotLoadedError`.
        """
        decision = await self.resolve(exchange, question, task, route)
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
        """Decide who answers. Raises as `choose` does, but for what is held or loaded."""
        self.check_task(task)
        started = time.perf_counter()
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
        if not decided:
            self._runtime.metrics.route_seconds.observe(time.perf_counter() - started)
        self._runtime.metrics.routes.labels(resolution.language, route.reason).inc()
        if route.detection is not None:
            self._runtime.metrics.confidence.observe(route.confidence)
        return Decision(resolution, parts)

    async def bring_in(self, exchange: Exchange, decision: Decision) -> Resolution:
        """Make the adapters of a decision resident: who answers now. A canary that fails makes way."""
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
        """The route of `question`. Long texts are not read on the event loop."""
        router = self._runtime.router
        if self._routes.remembers(question):
            return self._routes.decide(exchange.tenant, question, router, names)
        size = READING_BYTES * sum(map(len, question.turns))
        return await self.aside.run_sized(size, lambda: router.decide(question, names))

    async def _bring_in(self, exchange: Exchange, adapters: Sequence[Adapter]) -> None:
        """Have the adapters in the engine until the request's work has begun there."""
        if not adapters:
            return
        exchange.lease = lease = await self._runtime.residency.acquire(adapters)
        if lease.waited:
            exchange.receipt["X-OneSeek-Adapter-Wait"] = f"{lease.waited:.3f}"

    def _chosen(
        self, exchange: Exchange, question: RouteQuery, route: Route, names: Snapshot
    ) -> ChosenVersion | None:
        """The version that answers, where an alias is asked for whose requests are divided."""
        if len(route.target) != 1 or route.target[0][1] != 1.0:
            return None
        return self._rollouts.choose(names, route.target[0][0], (exchange.tenant, *question.opening))

    def tell(self, exchange: Exchange, resolution: Resolution) -> None:
        """Put on the exchange who answers."""
        exchange.adapter, exchange.version, exchange.language = (
            resolution.adapter,
            resolution.version,
            resolution.language,
        )
        exchange.base = self._runtime.name
        exchange.receipt |= resolution.receipt
        self._runtime.metrics.chosen(exchange)

    def check_name(self, exchange: Exchange, question: RouteQuery) -> None:
        """Raise as `choose` would for a name that is not served; nothing is chosen or loaded."""
        try:
            self._runtime.router.decide(question, self._runtime.served.snapshot)
        except (UnknownNameError, UnknownAdapterError):
            exchange.adapter = "unknown"
            raise

    async def encode(self, text: str, field: str, add_special_tokens: bool = True) -> tuple[int, ...]:
        """Tokens of a raw prompt. Raises `ApiError` for one that cannot fit, by the name of its `field`."""
        return await self._tokens(
            [text], field, lambda: self._runtime.tokenizer.encode(text, add_special_tokens)
        )

    async def decode(self, tokens: tuple[int, ...]) -> str:
        """The text of tokens, special ones left out."""
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
        """Tokens of a conversation, by the base's template. Raises as `encode` does, and `TemplateError`."""
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
        """Run `work` here if `texts` are few and short, else in a thread, and one such text at a time."""
        if _is_short(texts):
            return tuple(work())
        return await self.aside.run(lambda: self._fitting_tokens(texts, field, work))

    def _fitting_tokens(
        self, texts: Sequence[object], field: str, work: Callable[[], Sequence[int]]
    ) -> tuple[int, ...]:
        size = _characters(list(texts))
        if self._longest is None:
            self._longest = _longest_token(self._runtime.tokenizer)
        context = self._runtime.info.context
        # A normaliser may halve a text by composing its characters.
        if size > 2 * context * self._longest:
            raise context_exceeded(field, context, f"{size} characters, more than so many")
        return tuple(work())

    def generate(
        self,
        exchange: Exchange,
        resolution: Resolution,
        prompts: Sequence[tuple[int, ...]],
        samplings: Sequence[Sampling],
        n: int,
        continues: bool = False,
    ) -> Deltas:
        """Deltas of `n` choices for each prompt, as they come; choice `i` of prompt `p` is `p * n + i`.

        Closing it aborts what still runs. A seed gives each choice a different text, the same ones each time.
        `continues`: see `GenerationRequest`. They take the places that `choose` holds.
        """
        held = exchange.held.name if exchange.held is not None else ""
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
                )
                deltas = self._deltas(len(sources), request, exchange, resolution)
                if resolution.chosen is not None and not sources:
                    deltas = measure_answer(deltas, resolution.chosen, request, exchange, self._shadows)
                sources.append(deltas)
        return sources[0] if len(sources) == 1 else merge_streams(sources)

    async def _deltas(
        self, index: int, request: GenerationRequest, exchange: Exchange, resolution: Resolution
    ) -> Deltas:
        metrics = self._runtime.metrics
        source: AsyncGenerator[Delta] | None = None
        meter: Meter | None = None
        reason = "error"
        exchange.generating = True
        try:
            source, first = await self._begin(request, resolution)
            if exchange.lease is not None:
                exchange.lease.begun()
            meter = metrics.meter(
                resolution.adapter, resolution.version, exchange.started, self._runtime.name
            )
            meter.delta(first)
            yield [(index, first)]
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
            if meter is None and reason:
                metrics.cancelled.labels(reason).inc()
            if meter is not None and not meter.finished:
                meter.close(len(request.prompt), reason)
            if source is not None:
                await source.aclose()

    async def _begin(
        self, request: GenerationRequest, resolution: Resolution
    ) -> tuple[AsyncGenerator[Delta], Delta]:
        """A generation and its first delta.

        An adapter unloaded since it was chosen is loaded again, once.
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


def _longest_token(tokenizer: Tokenizer) -> int:
    """Characters of the longest token, at least 1."""
    return max(1, *(len(tokenizer.token_text(token)) for token in range(tokenizer.vocabulary_size)))


def _is_short(texts: Sequence[object]) -> bool:
    """Whether `texts` hold few characters and few values; looks no further than it has to."""
    left = INLINE_CHARACTERS
    pending: list[object] = [list(texts)]
    while pending and left >= 0:
        match pending.pop():
            case str() as text:
                left -= len(text)
            case list() as items:
                left -= VALUE_CHARACTERS * len(cast("list[object]", items))
                pending += cast("list[object]", items) if left >= 0 else []
            case dict() as fields:
                left -= VALUE_CHARACTERS * len(cast("dict[str, object]", fields))
                pending += cast("dict[str, object]", fields).values() if left >= 0 else []
            case _:
                pass
    return left >= 0


def _characters(value: object) -> int:
    """Characters that a client's message or tool brings to the text, roles aside."""
    match value:
        case str():
            return len(value)
        case list():
            return sum(map(_characters, cast("list[object]", value)))
        case dict():
            items = cast("dict[str, object]", value).items()
            return sum(_characters(item) for key, item in items if key not in ("role", "type"))
        case _:
            return 0
