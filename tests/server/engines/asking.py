"""How the engine tests ask, and what they hold answers to."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import numpy as np

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.request import AdapterMix, Delta, GenerationRequest, Sampling


class Asker:
    """Makes requests with ids of their own."""

    count = 0
    salt = ""
    """The running test's name: tests share an engine, never its prefix cache."""

    @classmethod
    def ask(
        cls, prompt: Sequence[int], adapter_mix: AdapterMix = (), **sampling: object
    ) -> GenerationRequest:
        cls.count += 1
        settings: dict[str, object] = {"max_tokens": 12, "temperature": 0.0, "ignore_eos": True, **sampling}
        return GenerationRequest(
            request_id=f"test-{cls.count}",
            prompt=tuple(prompt),
            sampling=Sampling(**settings),  # pyright: ignore[reportArgumentType] # the caller names real fields
            adapter_mix=adapter_mix,
            cache_salt=cls.salt,
            share=adapter_mix[0][0] if adapter_mix else "",
        )


ask = Asker.ask


def alone(adapter: Adapter) -> AdapterMix:
    return ((adapter.digest, 1.0),)


async def collect(engine: Engine, request: GenerationRequest) -> list[Delta]:
    return [delta async for delta in engine.generate(request)]


async def tokens(engine: Engine, request: GenerationRequest) -> list[int]:
    return [token for delta in await collect(engine, request) for token in delta.token_ids]


def random_prompts(count: int, seed: int = 0, longest: int = 60) -> list[list[int]]:
    random = np.random.default_rng(seed)
    return [random.integers(3, 500, random.integers(1, longest)).tolist() for _ in range(count)]


def assert_same_choices(lone: list[Delta], batch: list[int]) -> None:
    """Equal up to the first place where the two leading logits lie within 1e-4."""
    scored = [score for delta in lone for score in delta.logprobs]
    for score, token in zip(scored, batch, strict=True):
        if score.token_id != token:
            (_, first), (_, second) = score.top[:2]
            assert first - second < 1e-4
            return


def engine_is_idle(engine: Engine) -> bool:
    state = engine.state()
    return not state.running and not state.waiting


async def settles(engine: Engine, seconds: float = 2.0) -> bool:
    for _ in range(int(seconds * 100)):
        if engine_is_idle(engine):
            return True
        await asyncio.sleep(0.01)
    return False
