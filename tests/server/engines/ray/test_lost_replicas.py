"""What happens when a replica goes while it works, and what a new one gets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from server.api.rendering.answers import Answer
from server.engines.ray import engine as remote_engine
from server.engines.shared.unread import STREAM_BYTES
from server.errors import AdapterRefusedError, EngineBusyError, EngineDeadError, UnreadAnswerError
from server.request import Delta, GenerationRequest
from tests.server.engines.asking import alone, ask, collect, engine_is_idle, settles, tokens
from tests.server.engines.making import EngineLimits, remote
from tests.server.engines.ray.local import LocalEngine

pytestmark = pytest.mark.anyio
LIMITS = EngineLimits(max_num_seqs=4, max_queue=8, max_adapters=2)


@pytest.fixture
async def engine(tiny_base: Path, voices: dict[str, Adapter], tmp_path: Path) -> AsyncIterator[LocalEngine]:
    made = remote(tiny_base, tmp_path, list(voices.values()), LIMITS, replicas=2)
    await made.start()
    yield made
    await made.close()


def long(request: GenerationRequest, *, whole: bool = False) -> GenerationRequest:
    return replace(request, sampling=replace(request.sampling, max_tokens=200), whole=whole)


async def lose_writer(engine: LocalEngine) -> str:
    """Lose the replica that was given the last request."""
    name, _ = engine.local.taken[-1]
    await engine.local.lose(name)
    return name


def gathered(deltas: list[Delta]) -> Answer:
    answer = Answer()
    for delta in deltas:
        answer.add(delta)
    return answer


async def test_a_whole_answer_begins_again_elsewhere(engine: LocalEngine) -> None:
    request = long(ask([1, 5, 9]), whole=True)
    expected = gathered(await collect(engine, replace(request, request_id="alone")))
    deltas: list[Delta] = []
    async with aclosing(engine.generate(request)) as source:
        deltas.append(await anext(source))
        lost = await lose_writer(engine)
        deltas += [delta async for delta in source]
    assert gathered(deltas).token_ids == expected.token_ids
    assert gathered(deltas).text == expected.text
    assert sum(delta.anew for delta in deltas) == 1
    assert engine.local.taken[-1][0] != lost
    assert engine.retried == 1


async def test_a_stream_of_which_nothing_was_read_begins_again(engine: LocalEngine) -> None:
    request = long(ask([1, 5, 9]))
    source = engine.generate(request)
    first = asyncio.ensure_future(anext(source))
    while not engine.local.taken:
        await asyncio.sleep(0)
    await lose_writer(engine)
    rest = [await first, *[delta async for delta in source]]
    assert sum(len(delta.token_ids) for delta in rest) == 200
    assert not any(delta.anew for delta in rest)


async def test_a_stream_under_way_ends_with_an_error(engine: LocalEngine) -> None:
    source = engine.generate(long(ask([1, 5, 9])))
    await anext(source)
    await lose_writer(engine)
    with pytest.raises(EngineDeadError):
        async for _ in source:
            pass
    assert await settles(engine)
    assert len(await tokens(engine, ask([1, 5, 9]))) == 12


async def test_the_replica_that_is_left_answers_all_that_were_admitted(engine: LocalEngine) -> None:
    admitted = [long(ask([1, 5, number]), whole=True) for number in range(engine.places.limit)]
    answers = [asyncio.ensure_future(collect(engine, request)) for request in admitted]
    while len(engine.local.taken) < len(admitted):
        await asyncio.sleep(0)
    with pytest.raises(EngineBusyError):
        await tokens(engine, ask([1, 2]))
    await engine.local.lose("r0")
    lengths = [len(gathered(deltas).token_ids) for deltas in await asyncio.gather(*answers)]
    assert lengths == [200] * len(admitted)
    assert engine.retried


async def test_no_replica_is_a_refusal_in_time(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_engine, "BEGIN_SECONDS", 0.2)
    for name in ("r0", "r1"):
        await engine.local.lose(name)
    with pytest.raises(EngineDeadError):
        await asyncio.wait_for(tokens(engine, ask([1, 2])), 20)
    await engine.fleet.refresh()
    assert (engine.state().alive, engine.state().restarting) == (False, True)
    await engine.local.begin("r2")
    assert len(await tokens(engine, ask([1, 2]))) == 12
    await engine.fleet.refresh()
    assert engine.state().ready


async def test_a_new_replica_loads_what_a_request_needs(
    engine: LocalEngine, voices: dict[str, Adapter]
) -> None:
    await engine.load(voices["sv"])
    expected = await tokens(engine, ask([1, 5, 9], alone(voices["sv"])))
    for name in ("r0", "r1"):
        await engine.local.lose(name)
    await engine.local.begin("r2")
    assert await tokens(engine, ask([1, 5, 9], alone(voices["sv"]))) == expected


async def test_an_adapter_is_loaded_wherever_there_is_room_and_unloaded_everywhere(
    engine: LocalEngine, voices: dict[str, Adapter]
) -> None:
    adapters = [voices["en"], voices["sv"], replace(voices["sv"], alias="third", digest=voices["sv"].digest)]
    for adapter in adapters[:2]:
        await engine.load(adapter)
    held = [set(host.status().state.resident) for host in engine.local.hosts.values()]
    assert held == [{voices["en"].digest, voices["sv"].digest}] * 2
    await engine.unload(voices["en"].digest)
    held = [set(host.status().state.resident) for host in engine.local.hosts.values()]
    assert held == [{voices["sv"].digest}] * 2


async def test_an_adapter_that_no_replica_takes_is_refused(
    engine: LocalEngine, voices: dict[str, Adapter]
) -> None:
    with pytest.raises(AdapterRefusedError):
        await engine.load(replace(voices["sv"], digest="sha256:" + "1" * 64))
    assert engine.residents.open == frozenset()


async def test_places_follow_the_number_of_replicas(engine: LocalEngine) -> None:
    assert engine.places.limit == 2 * 4 + 8
    await engine.local.lose("r0")
    await engine.fleet.refresh()
    assert engine.places.limit == 4 + 8
    working = [asyncio.create_task(tokens(engine, long(ask([1, number])))) for number in range(12)]
    await asyncio.sleep(0)
    with pytest.raises(EngineBusyError):
        await tokens(engine, ask([1, 2]))
    assert [len(found) for found in await asyncio.gather(*working)] == [200] * 12


async def test_what_nobody_reads_is_bounded(engine: LocalEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("server.engines.shared.unread.STREAM_BYTES", 2000)
    assert STREAM_BYTES > 2000

    async def read_late() -> None:
        source = engine.generate(long(ask([1, 5, 9])))
        await anext(source)
        while not engine_is_idle(engine):
            await asyncio.sleep(0.01)
        async for _ in source:
            pass

    # The ingress or the replica ends it, whichever is slower; the replica perhaps before the first read.
    with pytest.raises(UnreadAnswerError):
        await read_late()
    assert await settles(engine)
