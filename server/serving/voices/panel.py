"""All voices that one question goes to: their places are held together, and each answers or fails alone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing

from server.exchange import Exchange
from server.metrics.metrics import Metrics
from server.request import Delta
from server.serving.gate import Gate, hold_together
from server.serving.voices.voice import LocalVoice, Voice

VoiceEvents = AsyncGenerator[list[tuple[int, Delta | Exception]]]
"""What has come from the voices, each with its number: a piece of its answer, or what kept it from more."""


async def load_bases(voices: Sequence[LocalVoice]) -> None:
    """Load those bases of `voices` that are loaded on demand. Raises `BaseNotLoadedError`."""
    for service in {voice.service.runtime.name: voice.service for voice in voices}.values():
        await service.generation.ready()


def hold_places(exchange: Exchange, voices: Sequence[LocalVoice]) -> None:
    """Hold a place for each of `voices` until the request ends, all or none. Raises `EngineBusyError`."""
    wanted: dict[Gate, list[str]] = {}
    for voice in voices:
        wanted.setdefault(voice.service.generation.gate, []).append(voice.resolution.share)
    held = hold_together(exchange, wanted)
    for voice in voices:
        voice.exchange.held = held[voice.service.generation.gate][voice.resolution.share]


def count_voices(exchange: Exchange, voices: Sequence[Voice]) -> None:
    """From now on the request is counted by its voices."""
    exchange.voices += [voice.exchange for voice in voices]
    for voice in voices:
        if isinstance(voice, LocalVoice):
            voice.service.generation.tell(voice.exchange, voice.resolution)


async def run_voices(exchange: Exchange, voices: Sequence[Voice], metrics: Metrics) -> VoiceEvents:
    """Have all of them answer at the same time, those of one engine in one batch.

    A voice that fails is one event with its error; the others go on. Closing this ends all of them.
    """
    arrivals: asyncio.Queue[tuple[int, Delta | Exception] | None] = asyncio.Queue()
    exchange.generating = True
    tasks = [
        asyncio.create_task(_listen(index, voice, arrivals, metrics)) for index, voice in enumerate(voices)
    ]
    try:
        left = len(tasks)
        while left:
            batch = [await arrivals.get()]
            while not arrivals.empty():
                batch.append(arrivals.get_nowait())
            events = [item for item in batch if item is not None]
            left -= len(batch) - len(events)
            if events:
                yield events
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _listen(
    index: int,
    voice: Voice,
    arrivals: asyncio.Queue[tuple[int, Delta | Exception] | None],
    metrics: Metrics,
) -> None:
    try:
        async with aclosing(voice.answer()) as stream:
            async for deltas in stream:
                for _, delta in deltas:
                    arrivals.put_nowait((index, delta))
    except asyncio.CancelledError:
        if not voice.exchange.generating:  # what was generated is counted where it ends
            metrics.cancelled.labels(voice.exchange.cancel_reason).inc()
        raise
    except Exception as error:
        arrivals.put_nowait((index, error))
    finally:
        voice.exchange.ended = voice.exchange.ended or time.perf_counter()
        arrivals.put_nowait(None)
