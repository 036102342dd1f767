"""Asks all voices (the models that answer one question together) at the same time.

Places in the queue are reserved for all voices or none. A voice whose base is not in memory reserves its
place once the base is loaded. If one model fails, the others still answer.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from server.exchange import Exchange
from server.metrics.metrics import Metrics
from server.request import Delta, Deltas
from server.serving.fan_in import gather_arrivals
from server.serving.gate import Gate, hold_together
from server.serving.voices.voice import LocalVoice, Voice

VoiceEvents = AsyncGenerator[list[tuple[int, Delta | Exception]]]
"""Yields events of the models that answer, each with the model's index: a piece of its answer, or
its error.
"""


def hold_places(exchange: Exchange, voices: Sequence[LocalVoice]) -> None:
    """Reserve a place in the queue for each model in `voices` whose base is in memory, for all or none.
    Raises `EngineBusyError`.

    Other models load their base and reserve their place themselves, because `max_loaded_bases` may allow a
    base only when the answers of another one are complete.
    """
    loaded = [voice for voice in voices if voice.service.runtime.loaded]
    wanted: dict[Gate, list[str]] = {}
    for voice in loaded:
        wanted.setdefault(voice.service.generation.gate, []).append(voice.resolution.share)
    held = hold_together(exchange, wanted)
    for voice in loaded:
        voice.exchange.held = held[voice.service.generation.gate][voice.resolution.share]


def count_voices(exchange: Exchange, voices: Sequence[Voice]) -> None:
    """Add each model's exchange to `exchange.voices`, so that metrics count the request once for
    each model.
    """
    exchange.voices += [voice.exchange for voice in voices]
    for voice in voices:
        if isinstance(voice, LocalVoice):
            voice.service.generation.tell(voice.exchange, voice.resolution)


async def run_voices(exchange: Exchange, voices: Sequence[Voice], metrics: Metrics) -> VoiceEvents:
    """Let all models answer at the same time, those of one engine in one batch.

    If a model fails, its error is yielded as an event, and the other models continue. Closing the generator
    ends all answers.
    """
    exchange.generating = True
    answers = [_answer(voice, metrics) for voice in voices]
    async with aclosing(gather_arrivals(answers)) as arrivals:
        async for batch in arrivals:
            events: list[tuple[int, Delta | Exception]] = []
            for number, item in batch:
                if isinstance(item, Exception):
                    events.append((number, item))
                else:
                    events += [(number, delta) for _, delta in item]
            yield events


async def _answer(voice: Voice, metrics: Metrics) -> Deltas:
    """Yield the pieces of one model's answer, and record when it ended. An answer that is cancelled before it
    began is counted as cancelled.
    """
    try:
        async with aclosing(voice.answer()) as stream:
            async for deltas in stream:
                yield deltas
    except (asyncio.CancelledError, GeneratorExit):
        if not voice.exchange.generating:  # what was generated is counted where it ends
            metrics.cancelled.labels(voice.exchange.cancel_reason).inc()
        raise
    finally:
        voice.exchange.ended = voice.exchange.ended or time.perf_counter()
