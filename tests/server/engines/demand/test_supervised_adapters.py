"""Which adapters the engine that takes a dead one's place gets back."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from server.engines.embedded.model.cache import prepare
from server.engines.supervised import SupervisedEngine
from server.errors import EngineDeadError
from tests.server.engines.asking import ask, tokens
from tests.server.engines.faulty import Machine, raise_in_step
from tests.server.engines.making import BASE_DIGEST

pytestmark = pytest.mark.anyio


async def test_what_is_unloaded_from_a_dead_engine_does_not_come_back(
    tiny_base: Path, tmp_path: Path, voices: dict[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.engines.supervised.LOOK_SECONDS", 0.01)
    monkeypatch.setattr("server.engines.supervised.FIRST_WAIT", 0.05)
    machine = Machine(tiny_base, prepare(tiny_base, tmp_path, BASE_DIGEST))
    engine = SupervisedEngine(machine.open(), machine.open, machine, restarts=3)
    await engine.start()
    try:
        en, sv = voices["en"], voices["sv"]
        await engine.load(en)
        await engine.load(sv)
        machine.refuses_to_open = 1  # it stays dead for a moment
        machine.faults.append(raise_in_step)
        with pytest.raises(EngineDeadError):
            await tokens(engine, ask([3, 4, 5]))
        with pytest.raises(EngineDeadError):
            await engine.unload(en.digest)
        while not engine.state().ready:
            await asyncio.sleep(0.01)
        assert set(engine.state().resident) == {sv.digest}
    finally:
        await engine.close()
