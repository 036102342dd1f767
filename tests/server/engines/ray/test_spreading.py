"""Requests of the same moment, which no replica has confirmed yet when the next is placed."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from server.engines.ray.calls import EngineCall, ReplicaLostError
from server.request import EmbeddingRequest
from tests.server.engines.asking import alone, ask, tokens
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


async def idle(engine: LocalEngine) -> None:
    """Until no replica counts a request."""
    async with asyncio.timeout(20):
        while any(place.load for place in engine.fleet.places().values()):
            await asyncio.sleep(0.01)


@pytest.mark.parametrize("name", ["", "sv"])
async def test_a_burst_is_spread_over_the_replicas(
    engine: LocalEngine, voices: dict[str, Adapter], name: str
) -> None:
    if name:
        await engine.load(voices[name])
    mix = alone(voices[name]) if name else ()
    await asyncio.gather(*(tokens(engine, ask([1, number], mix)) for number in range(8)))
    assert Counter(replica for replica, _ in engine.local.taken) == {"r0": 4, "r1": 4}
    await idle(engine)


async def test_embeddings_are_spread_and_begin_again_elsewhere(
    engine: LocalEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = Counter[str]()

    async def embed(call: EngineCall) -> tuple[float, ...]:
        asked[call.ranked[0]] += 1
        await asyncio.sleep(0.01)
        if call.ranked[0] == "r1":
            raise ReplicaLostError("r1 is gone")
        return (1.0,)

    # The embedded engine makes no embeddings.
    monkeypatch.setattr(engine.local, "embed", embed)
    requests = [EmbeddingRequest(request_id=f"e{number}", prompt=(1, 5)) for number in range(8)]
    assert await asyncio.gather(*(engine.embed(request) for request in requests)) == [(1.0,)] * 8
    assert asked == {"r0": 8, "r1": 4}
    await idle(engine)
