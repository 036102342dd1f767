"""More adapters than slots, on any engine: every name answers as it does alone, while others come and go."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.lora.manifest import Adapter, read_manifest
from adapters.registry.served import ServedAdapters
from server.engines.base import Engine
from server.live.slots.priorities import Priorities
from server.live.slots.residency import Residency
from server.metrics.metrics import Metrics
from server.request import Delta
from tests.server.engines.asking import alone, ask, assert_same_choices, collect
from tests.server.engines.making import BASE_DIGEST

pytestmark = pytest.mark.anyio
COUNT, SLOTS = 70, 8
PROMPT = [1, 9, 30, 7]


@pytest.fixture(scope="module")
def many(make_adapter: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> list[Adapter]:
    """`COUNT` adapters, each with numbers of its own."""
    pattern, root = make_adapter("many", 41), tmp_path_factory.mktemp("many")
    weights, random = load_file(pattern / "adapter_model.safetensors"), np.random.default_rng(5)
    found: list[Adapter] = []
    for number in range(COUNT):
        folder = root / f"voice-{number}"
        shutil.copytree(pattern, folder)
        own = {
            name: random.normal(0, 0.3, array.shape).astype(array.dtype) for name, array in weights.items()
        }
        save_file(own, folder / "adapter_model.safetensors")
        found.append(read_manifest(folder, alias=f"voice-{number}", version="v1"))
    return found


@asynccontextmanager
async def housed(
    engine: Engine, adapters: list[Adapter], *, pinned: tuple[str, ...] = ()
) -> AsyncGenerator[tuple[Residency, Metrics]]:
    metrics = Metrics()
    served = ServedAdapters(adapters, base_digest=BASE_DIGEST)
    residency = Residency(engine, metrics, Priorities(served, pinned))
    await engine.start()
    await residency.load_first()
    try:
        yield residency, metrics
    finally:
        residency.close()


async def answer(residency: Residency, engine: Engine, adapter: Adapter, tokens: int = 6) -> list[Delta]:
    """What a request gets that asks for the adapter as the server does."""
    lease = await residency.acquire([adapter])
    stream = engine.generate(ask(PROMPT, alone(adapter), max_tokens=tokens, logprobs=2))
    try:
        deltas = [await anext(stream)]
        lease.close()
        return deltas + [delta async for delta in stream]
    finally:
        lease.close()
        await stream.aclose()


async def lone_answers(engine: Engine, adapters: list[Adapter]) -> dict[str, list[Delta]]:
    found: dict[str, list[Delta]] = {}
    for adapter in adapters:
        await engine.load(adapter)
        request = ask(PROMPT, alone(adapter), max_tokens=6, logprobs=2)
        found[adapter.digest] = await collect(engine, request)
        await engine.unload(adapter.digest)
    return found


def flat(deltas: list[Delta]) -> list[int]:
    return [token for delta in deltas for token in delta.token_ids]


async def test_every_name_answers_as_it_does_alone_while_others_come_and_go(
    make_engine: Callable[..., Engine], many: list[Adapter]
) -> None:
    engine = make_engine(max_adapters=SLOTS)
    async with housed(engine, many, pinned=("voice-0",)) as (residency, metrics):
        await engine.unload(many[0].digest)
        lone = await lone_answers(engine, many)
        assert len({tuple(flat(deltas)) for deltas in lone.values()}) > COUNT // 2
        await residency.load_first()
        room = asyncio.Semaphore(12)
        order = np.random.default_rng(3).permutation(np.repeat(np.arange(COUNT), 2))

        async def one(adapter: Adapter) -> None:
            async with room:
                assert_same_choices(lone[adapter.digest], flat(await answer(residency, engine, adapter)))
                assert len(engine.state().resident) <= SLOTS
                assert many[0].digest in engine.residents.open

        await asyncio.gather(*(one(many[index]) for index in order))
        loaded = sum(
            metrics.registry.get_sample_value(
                "oneseek_adapter_loads_total", {"adapter": adapter.alias, "outcome": "ok"}
            )
            or 0
            for adapter in many
        )
        evicted = sum(
            metrics.registry.get_sample_value("oneseek_adapter_evictions_total", {"adapter": adapter.alias})
            or 0
            for adapter in many
        )
        assert loaded >= COUNT
        # The pinned one was loaded twice, since the test unloaded it in between.
        assert evicted == loaded - 1 - len(engine.residents.open)


async def test_an_answer_that_runs_keeps_its_adapter_and_a_swap_goes_through(
    make_engine: Callable[..., Engine], many: list[Adapter]
) -> None:
    engine = make_engine(max_adapters=2)
    async with housed(engine, many[:6]) as (residency, _):
        old, new, others = many[0], many[1], many[2:6]
        alone_first = flat(await answer(residency, engine, old, tokens=40))
        running = asyncio.create_task(answer(residency, engine, old, tokens=40))
        while not engine.residents.in_use(old.digest):
            await asyncio.sleep(0.001)
        for adapter in others:
            await answer(residency, engine, adapter)
        await residency.ensure(new)
        swapped = asyncio.create_task(engine.unload(old.digest))
        await answer(residency, engine, new)
        await swapped
        assert flat(await running) == alone_first
        assert old.digest not in engine.residents.held
        assert flat(await answer(residency, engine, old, tokens=40)) == alone_first


async def test_a_blend_is_whole_while_others_come_and_go(
    make_engine: Callable[..., Engine], many: list[Adapter]
) -> None:
    engine = make_engine(max_adapters=3)
    if not engine.info.blends:
        return
    async with housed(engine, many[:9]) as (residency, _):

        async def blend(first: int) -> list[int]:
            parts = [many[first], many[first + 1]]
            lease = await residency.acquire(parts)
            mix = tuple(sorted((part.digest, 0.5) for part in parts))
            stream = engine.generate(ask(PROMPT, mix, max_tokens=6))
            deltas = [await anext(stream)]
            lease.close()
            return flat(deltas + [delta async for delta in stream])

        before = [await blend(first) for first in range(8)]
        assert list(await asyncio.gather(*map(blend, range(8)))) == before
