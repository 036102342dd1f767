"""Answers several prompts of one request, each by the adapter of its own language."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from dataclasses import dataclass

from routing.route import Reason, Route, RouteQuery
from server.exchange import Exchange
from server.request import Deltas, Sampling
from server.serving.fan_in import merge_streams
from server.serving.gate import hold_together
from server.serving.generation import Decision, Generation
from server.serving.resolution import Resolution, join_resolutions

_NAMED = (Reason.HEADER, Reason.MODEL)


@dataclass(slots=True)
class PromptGroup:
    """The prompts of a request that the same adapter answers."""

    exchange: Exchange
    """The exchange that records these prompts, for metrics and logs."""
    decision: Decision
    places: list[int]
    """The indices of these prompts among all prompts."""

    async def answer(
        self,
        generation: Generation,
        prompts: Sequence[tuple[int, ...]],
        samplings: Sequence[Sampling],
        n: int,
        *,
        whole: bool,
    ) -> Deltas:
        """Yield the deltas (pieces) of these prompts' answers, indexed as among all prompts of the request.
        See `Generation.generate`.
        """
        resolution = await generation.bring_in(self.exchange, self.decision)
        own = [prompts[place] for place in self.places]
        sampled = [samplings[place] for place in self.places]
        try:
            async with aclosing(
                generation.generate(self.exchange, resolution, own, sampled, n, continues=True, whole=whole)
            ) as deltas:
                async for items in deltas:
                    yield [(self.places[index // n] * n + index % n, delta) for index, delta in items]
        finally:
            if self.exchange.lease is not None:
                self.exchange.lease.close()


class PromptAnswers:
    """Decides which adapter answers each prompt of a request, and streams all answers as one stream."""

    def __init__(
        self,
        exchange: Exchange,
        generation: Generation,
        resolution: Resolution,
        groups: Sequence[PromptGroup],
    ) -> None:
        self._exchange = exchange
        self._generation = generation
        self.resolution = resolution
        """Which adapter answers. If several adapters answer (`groups`), `resolution.parts` has the adapter of
        each prompt, in order.
        """
        self._groups = groups

    def generate(
        self, prompts: Sequence[tuple[int, ...]], samplings: Sequence[Sampling], n: int, *, whole: bool
    ) -> Deltas:
        """Yield the deltas (pieces) of the answers to all prompts, as they come. See
        `Generation.generate`.
        """
        generation = self._generation
        if not self._groups:
            return generation.generate(
                self._exchange, self.resolution, prompts, samplings, n, continues=True, whole=whole
            )
        self._exchange.generating = True
        return merge_streams(
            [group.answer(generation, prompts, samplings, n, whole=whole) for group in self._groups]
        )


async def choose_for_prompts(
    exchange: Exchange,
    generation: Generation,
    questions: Sequence[RouteQuery],
    n: int,
    route: Route | None = None,
) -> PromptAnswers:
    """Decide which adapter answers each of `questions` (one for each prompt), and reserve `n` queue places
    for each.

    `route` is one decision for all prompts, if it has been made. An adapter that the request names answers
    all prompts. Raises the errors of `Generation.choose`.
    """
    places = len(questions) * n
    if len(questions) == 1 or (route is not None and route.reason in _NAMED):
        resolution = await generation.choose(exchange, questions[0], places, route=route)
        return PromptAnswers(exchange, generation, resolution, ())
    first = await generation.resolve(exchange, questions[0])
    decisions = [first]
    if first.resolution.route.reason not in _NAMED:
        for question in questions[1:]:
            # Many short prompts are as much work as a long one, for which no stream should wait.
            await asyncio.sleep(0)
            decisions.append(await generation.resolve(exchange, question))
    groups = _grouped(exchange, decisions)
    if len(groups) == 1:
        resolution = await generation.seat(exchange, first, places)
        return PromptAnswers(exchange, generation, resolution, ())
    joined = join_resolutions([decision.resolution for decision in decisions])
    for group in groups:
        generation.tell(group.exchange, group.decision.resolution)
    exchange.base = groups[0].exchange.base
    exchange.receipt |= joined.receipt
    exchange.voices += [group.exchange for group in groups]
    await generation.ready()
    _hold(exchange, generation, groups, n)
    return PromptAnswers(exchange, generation, joined, groups)


def _grouped(exchange: Exchange, decisions: Sequence[Decision]) -> list[PromptGroup]:
    groups: dict[object, PromptGroup] = {}
    for place, decision in enumerate(decisions):
        mix = decision.resolution.adapter_mix
        if mix not in groups:
            groups[mix] = PromptGroup(exchange.voice(), decision, [])
        groups[mix].places.append(place)
    return list(groups.values())


def _hold(exchange: Exchange, generation: Generation, groups: Sequence[PromptGroup], n: int) -> None:
    """Reserve places in the queue for all groups of prompts until the request ends: all of them or none.
    Raises `EngineBusyError`.
    """
    shares = [group.decision.resolution.share for group in groups for _ in range(len(group.places) * n)]
    held = hold_together(exchange, {generation.gate: shares})[generation.gate]
    for group in groups:
        group.exchange.held = held[group.decision.resolution.share]
