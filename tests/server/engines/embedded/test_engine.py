"""What the embedded engine takes and refuses, by its code for the CPU and by that for devices."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter, read_manifest
from server.engines.base import Engine
from server.engines.embedded.runners.cpu.runner import CpuRunner
from server.engines.embedded.scheduling.limits import PAGE
from server.errors import AdapterRefusedError, EngineError, UnsupportedRequestError
from tests.server.engines.asking import alone, ask, collect, engine_is_idle, tokens
from tests.server.engines.making import EngineLimits, embedded

pytestmark = pytest.mark.anyio


async def test_a_budget_that_is_not_whole_pages_refuses_what_it_cannot_hold(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(max_num_seqs=1, max_model_len=250, prefix_caching=False, kv_tokens=250)
    await engine.start()
    longest = engine.state().kv_capacity
    assert longest == 240
    with pytest.raises(UnsupportedRequestError) as caught:
        await collect(engine, ask([5] * 10, max_tokens=longest - 9))
    assert caught.value.param == "max_tokens"
    assert len(await tokens(engine, ask([5] * 10, max_tokens=longest - 10))) == longest - 10


@pytest.mark.parametrize("faulty", [{"top_k": 1 << 70, "temperature": 1.0}, {"logprobs": "many"}])
async def test_a_request_that_cannot_be_sampled_fails_alone(engine: Engine, faulty: dict[str, Any]) -> None:
    drawn = [ask([1, 9, number], max_tokens=20, temperature=1.0, seed=number) for number in range(3)]
    before = [await tokens(engine, request) for request in drawn]
    drawn = [ask([1, 9, number], max_tokens=20, temperature=1.0, seed=number) for number in range(3)]
    *beside, fault = await asyncio.gather(
        *(tokens(engine, request) for request in drawn),
        collect(engine, ask([1, 9, 7], **faulty)),
        return_exceptions=True,
    )
    assert beside == before
    assert type(fault) is EngineError
    assert engine.state().alive
    assert engine_is_idle(engine)


class Steps:
    """Counts an engine's steps."""

    def __init__(self) -> None:
        self.count = 0

    def step(self, seconds: float, batch: int) -> None:
        """See `StepObserver.step`."""
        self.count += 1


async def test_an_adapter_is_tried_before_any_request_may_name_it(
    tiny_base: Path, voices: dict[str, Adapter], tmp_path: Path
) -> None:
    steps, voice = Steps(), voices["en"]
    engine = embedded(tiny_base, tmp_path, (), EngineLimits(), steps)
    await engine.start()
    await engine.load(voice)
    await engine.close()
    assert steps.count == 1


async def test_files_that_changed_since_they_were_found_are_not_loaded(
    tiny_base: Path, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    shutil.copytree(tiny_adapters["en"], tmp_path / "changing")
    found = read_manifest(tmp_path / "changing")
    config = tmp_path / "changing" / "adapter_config.json"
    config.write_text(config.read_text().replace('"lora_alpha": 8', '"lora_alpha": 6'))
    assert read_manifest(tmp_path / "changing").digest != found.digest
    engine = embedded(tiny_base, tmp_path, (), EngineLimits())
    await engine.start()
    with pytest.raises(AdapterRefusedError, match=found.digest):
        await engine.load(found)
    assert engine.residents.open == frozenset()
    await engine.close()


async def test_an_adapter_that_leaves_is_gone_from_graph_and_cache(
    tiny_base: Path, voices: dict[str, Adapter], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dropped: list[str] = []
    unload = CpuRunner.unload

    def recorded(runner: CpuRunner, digest: str) -> None:
        dropped.append(digest)
        unload(runner, digest)

    monkeypatch.setattr(CpuRunner, "unload", recorded)
    engine, voice = embedded(tiny_base, tmp_path, (), EngineLimits()), voices["en"]
    await engine.start()
    await engine.load(voice)
    await tokens(engine, ask([1, *range(3, 60)], alone(voice)))
    assert engine.state().kv_cached > 0
    await asyncio.wait_for(engine.unload(voice.digest), 5)  # no request holds it any more
    await tokens(engine, ask([1, 2], max_tokens=1))  # what it was told before is done
    assert dropped == [voice.digest]
    assert engine.state().kv_cached <= PAGE  # of the last request
    await engine.close()


async def test_what_is_given_up_is_worked_on_no_longer(tiny_base: Path, tmp_path: Path) -> None:
    steps = Steps()
    engine = embedded(tiny_base, tmp_path, (), EngineLimits(max_num_seqs=1), steps)
    await engine.start()
    asked = [asyncio.create_task(tokens(engine, ask([1, 2], max_tokens=200))) for _ in range(20)]
    while not steps.count:
        await asyncio.sleep(0.001)
    for task in asked:
        task.cancel()
    await asyncio.wait(asked)
    assert len(await tokens(engine, ask([1, 2], max_tokens=5))) == 5
    assert engine_is_idle(engine)
    await engine.close()
    assert steps.count < 10 * 200
