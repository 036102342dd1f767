"""What the embedded engine takes and refuses, by its code for the CPU and by that for devices."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import EngineError, UnsupportedRequestError
from tests.server.engines.asking import ask, collect, engine_is_idle, tokens
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
