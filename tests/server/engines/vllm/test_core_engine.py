"""The engine over a core, with a core that takes its steps when it is told to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import pytest

from adapters.lora.manifest import read_manifest
from server.engines.shared.stream import StepEvent
from server.engines.vllm.engine import CoreEngine
from server.engines.vllm.protocol import CoreLoad, CoreRequest, Listener
from server.errors import (
    AdapterRefusedError,
    AdapterUnavailableError,
    EngineBusyError,
    EngineDeadError,
    UnsupportedRequestError,
)
from server.metrics.engine_state import EngineInfo
from server.request import EmbeddingRequest, GenerationRequest, Sampling, Share
from server.text.tokenizer import Tokenizer

pytestmark = pytest.mark.anyio


class StepCore:
    """Generates token 5 for each request in a step."""

    at_once, max_rank, alive = 2, 8, True

    def __init__(self) -> None:
        self.info = EngineInfo(
            name="steps", base_digest="", context=256, vocabulary=500, blends=False, max_adapters=4
        )
        self.inside: dict[str, tuple[CoreRequest, int]] = {}
        self.most = 0
        self.begun: list[str] = []
        self.refused: set[str] = set()
        self.listener: Listener | None = None

    def load(self) -> CoreLoad:
        return CoreLoad(0.0, 0, 0, 0, 0)

    async def start(self, listener: Listener) -> None:
        self.listener = listener

    async def close(self) -> None:
        pass

    async def add(self, work: CoreRequest, adapter: int | None) -> None:
        if work.request.request_id in self.refused:
            raise UnsupportedRequestError("refused on purpose", "grammar")
        self.inside[work.core_id] = work, 0
        self.begun.append(work.request.request_id)
        self.most = max(self.most, len(self.inside))

    async def abort(self, core_ids: Sequence[str]) -> None:
        for core_id in core_ids:
            self.inside.pop(core_id, None)

    async def embed(self, request: EmbeddingRequest, adapter: int | None) -> Sequence[float]:
        return (1.0,)

    async def add_adapter(self, number: int, digest: str, folder: Path) -> None:
        pass

    async def remove_adapter(self, number: int) -> None:
        pass

    async def step(self) -> None:
        assert self.listener is not None
        for core_id, (work, made) in list(self.inside.items()):
            work.scheduled = work.scheduled or 1.0
            last = made + 1 == work.request.sampling.max_tokens
            event = StepEvent(5, finish_reason="length" if last else None)
            self.inside[core_id] = work, made + 1
            if last:
                del self.inside[core_id]
            self.listener.heard(work, [event], finished=last)
        for _ in range(5):
            await asyncio.sleep(0)


@pytest.fixture
async def core() -> StepCore:
    return StepCore()


@pytest.fixture
async def engine(core: StepCore, tiny_base: Path) -> AsyncIterator[CoreEngine]:
    engine = CoreEngine(core, base=tiny_base, tokenizer=Tokenizer.load(tiny_base), max_queue=6)
    await engine.start()
    yield engine
    await engine.close()


def ask(name: str, tenant: str, tokens: int = 3) -> GenerationRequest:
    return GenerationRequest(
        request_id=name, prompt=(1, 2), sampling=Sampling(max_tokens=tokens), tenant=tenant
    )


async def answer(engine: CoreEngine, request: GenerationRequest) -> int:
    return sum([len(delta.token_ids) async for delta in engine.generate(request)])


async def begin(engine: CoreEngine, *requests: GenerationRequest) -> list[asyncio.Task[int]]:
    tasks = [asyncio.create_task(answer(engine, request)) for request in requests]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    return tasks


async def test_no_more_are_inside_than_a_batch_and_shares_take_turns(
    engine: CoreEngine, core: StepCore
) -> None:
    crowd = await begin(engine, *(ask(f"a{n}", "a") for n in range(6)))
    other = await begin(engine, ask("b0", "b"), ask("b1", "b"))
    while not all(task.done() for task in (*crowd, *other)):
        await core.step()
    assert [await task for task in (*crowd, *other)] == [3] * 8
    assert core.most == 2
    assert core.begun[:4] == ["a0", "a1", "b0", "a2"]
    assert core.begun.index("b1") <= 5
    assert engine.places.live == 0


async def test_who_waits_and_leaves_never_reaches_the_core(engine: CoreEngine, core: StepCore) -> None:
    running = await begin(engine, ask("a0", "a"), ask("a1", "a"))
    waiting = await begin(engine, ask("a2", "a"), ask("a3", "a"))
    waiting[0].cancel()
    await asyncio.gather(waiting[0], return_exceptions=True)
    while not all(task.done() for task in (*running, waiting[1])):
        await core.step()
    assert core.begun == ["a0", "a1", "a3"]
    assert engine.places.live == 0


async def test_who_runs_and_leaves_lets_the_next_in(engine: CoreEngine, core: StepCore) -> None:
    running = await begin(engine, ask("a0", "a", 200), ask("a1", "a", 200))
    waiting = await begin(engine, ask("a2", "a"))
    await core.step()
    running[0].cancel()
    await asyncio.gather(running[0], return_exceptions=True)
    for _ in range(10):
        await core.step()
    assert waiting[0].done(), "it does not wait for the other stream to end"
    running[1].cancel()
    await asyncio.gather(*running, return_exceptions=True)


async def test_a_full_queue_makes_room_for_another_share(engine: CoreEngine, core: StepCore) -> None:
    crowd = await begin(engine, *(ask(f"a{n}", "a") for n in range(8)))
    await core.step()
    with pytest.raises(EngineBusyError):
        await answer(engine, ask("a9", "a"))
    other = await begin(engine, ask("b0", "b"))
    with pytest.raises(EngineBusyError) as lost:
        await crowd[7]
    assert lost.value.gate == "queue"
    while not all(task.done() for task in (*crowd, *other)):
        await core.step()
    assert [await task for task in (*crowd[:7], *other)] == [3] * 8


async def test_a_reservation_is_claimed_once_and_counts_until_it_is_closed(
    engine: CoreEngine, core: StepCore
) -> None:
    held = engine.places.reserve(Share("a", ""), 8)
    with pytest.raises(EngineBusyError):
        engine.places.check(Share("a", ""))
    asked = GenerationRequest(
        request_id="h", prompt=(1,), sampling=Sampling(max_tokens=1), tenant="a", reservation=held.name
    )
    (task,) = await begin(engine, asked)
    await core.step()
    assert await task == 1
    assert engine.places.live == 7
    held.close()
    assert engine.places.live == 0


async def test_what_the_core_refuses_in_its_turn_is_told(engine: CoreEngine, core: StepCore) -> None:
    running = await begin(engine, ask("a0", "a"), ask("a1", "a"))
    core.refused |= {"a2"}
    waiting = await begin(engine, ask("a2", "a"), ask("a3", "a"))
    while not all(task.done() for task in (*running, *waiting)):
        await core.step()
    with pytest.raises(UnsupportedRequestError):
        await waiting[0]
    assert await waiting[1] == 3
    assert engine.places.live == 0


async def test_a_core_that_dies_fails_those_that_wait_too(engine: CoreEngine) -> None:
    tasks = await begin(engine, *(ask(f"a{n}", "a") for n in range(4)))
    engine.on_death("gone")
    for task in tasks:
        with pytest.raises(EngineDeadError):
            await task


async def test_a_rank_beyond_the_cores_is_refused_and_no_damage(
    engine: CoreEngine, make_adapter: Callable[..., Path]
) -> None:
    wide = read_manifest(make_adapter("wide", 5, rank=StepCore.max_rank + 1), alias="wide", version="v1")
    with pytest.raises(AdapterRefusedError) as refused:
        await engine.load(wide)
    assert not isinstance(refused.value, AdapterUnavailableError)
    assert not engine.residents.held
