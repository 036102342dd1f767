"""Adapters come in whole or not at all, and leave once the last request that uses them has ended."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters.errors import AdapterError
from adapters.lora.manifest import Adapter
from server.engines.shared.residents import Residents
from server.errors import AdapterNotLoadedError, AdapterRefusedError, EngineError

pytestmark = pytest.mark.anyio


def adapter(name: str) -> Adapter:
    return Adapter(
        alias=name,
        version="v1",
        language=None,
        path=Path(name),
        digest=f"sha256:{name}",
        base_digest=None,
        rank=4,
        alpha=8,
        targets=("q_proj",),
    )


ONE, TWO = adapter("one"), adapter("two")


class Engine:
    """What an engine holds, and how it takes an adapter."""

    def __init__(self) -> None:
        self.held: set[str] = set()
        self.gate = asyncio.Event()
        self.gate.set()
        self.fault: Exception | None = None

    async def bring_in(self, adapter: Adapter) -> None:
        self.held.add(adapter.digest)
        await self.gate.wait()
        if self.fault is not None:
            raise self.fault

    def drop(self, digest: str) -> asyncio.Future[None]:
        self.held.discard(digest)
        dropped = asyncio.get_running_loop().create_future()
        dropped.set_result(None)
        return dropped


async def test_an_adapter_leaves_with_its_last_request() -> None:
    engine = Engine()
    residents = Residents(2, engine.bring_in, engine.drop)
    await residents.load(ONE)
    residents.take(((ONE.digest, 1.0),))
    residents.take(((ONE.digest, 1.0),))
    unloading = asyncio.create_task(residents.unload(ONE.digest))
    for _ in range(2):
        await asyncio.sleep(0)
        assert engine.held == {ONE.digest}
        assert residents.open == frozenset()
        with pytest.raises(AdapterNotLoadedError):
            residents.take(((ONE.digest, 1.0),))
        residents.give_back(((ONE.digest, 1.0),))
    await asyncio.wait_for(unloading, 10)
    assert engine.held == set()


async def test_nothing_names_an_adapter_that_is_still_coming_in() -> None:
    engine = Engine()
    residents = Residents(2, engine.bring_in, engine.drop)
    engine.gate.clear()
    loading = asyncio.create_task(residents.load(ONE))
    await asyncio.sleep(0)
    assert engine.held == {ONE.digest}
    with pytest.raises(AdapterNotLoadedError):
        residents.take(((ONE.digest, 1.0),))
    residents.take(((ONE.digest, 1.0),), probe=True)
    engine.gate.set()
    await loading
    residents.take(((ONE.digest, 1.0),))


@pytest.mark.parametrize("fault", [AdapterError(Path("/home/x"), "is bad", "Mend it."), EngineError("NaN")])
async def test_what_is_refused_leaves_nothing(fault: Exception) -> None:
    engine = Engine()
    residents = Residents(1, engine.bring_in, engine.drop)
    engine.fault = fault
    with pytest.raises(AdapterRefusedError) as refused:
        await residents.load(ONE)
    assert "/home" not in str(refused.value)
    assert (engine.held, residents.open) == (set(), frozenset())
    engine.fault = None
    await residents.load(TWO)
    with pytest.raises(AdapterRefusedError):
        await residents.load(ONE)


async def test_a_load_that_is_given_up_leaves_nothing() -> None:
    engine = Engine()
    residents = Residents(1, engine.bring_in, engine.drop)
    engine.gate.clear()
    loading = asyncio.create_task(residents.load(ONE))
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    assert (engine.held, residents.open) == (set(), frozenset())
    engine.gate.set()
    await residents.load(TWO)
