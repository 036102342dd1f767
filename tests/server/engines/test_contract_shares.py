"""What every engine promises of shares: a flood of one leaves the answers of another as they are."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from adapters.lora.manifest import Adapter
from server.engines.base import Engine
from server.errors import EngineBusyError
from server.request import GenerationRequest
from tests.server.engines.asking import alone, ask, settles, tokens

pytestmark = pytest.mark.anyio


@pytest.mark.parametrize("by", ["key", "adapter"])
async def test_a_newcomer_begins_beside_a_flood_and_every_text_stays_the_same(
    make_engine: Callable[..., Engine], voices: dict[str, Adapter], by: str
) -> None:
    """What is put back for another share goes on later where it was: sampled, penalised and scored alike."""
    engine, en, sv = make_engine(max_num_seqs=4, max_queue=64), voices["en"], voices["sv"]
    await engine.start()
    for voice in (en, sv):
        await engine.load(voice)
    kinds: list[dict[str, Any]] = [
        {"temperature": 0.0},
        {"temperature": 1.0, "seed": 7},
        {"temperature": 0.8, "seed": 8, "repetition_penalty": 1.2, "frequency_penalty": 0.5},
        {"temperature": 0.0, "logprobs": 2},
    ]

    def flood() -> list[GenerationRequest]:
        asked = (ask([1, 2, n], alone(en), max_tokens=150, **kinds[n % 4]) for n in range(8))
        return [replace(request, tenant="flood") for request in asked]

    lone = [await tokens(engine, request) for request in flood()]
    crowd = [asyncio.create_task(tokens(engine, request)) for request in flood()]
    while sum(engine.state().running.values()) < 4:
        await asyncio.sleep(0.001)
    voice, tenant = (alone(en), "other") if by == "key" else (alone(sv), "flood")
    done = 0
    for number in range(6):
        newcomer = replace(ask([9, number], voice, max_tokens=10), tenant=tenant)
        assert len(await tokens(engine, newcomer)) == 10
        done += sum(task.done() for task in crowd)
    assert await asyncio.gather(*crowd) == lone
    if engine.info.name != "vllm":  # which puts nothing back
        assert engine.state().made_way > 0
        assert done < 8, "the newcomers had to wait for no stream to end"


async def test_a_full_queue_makes_room_for_a_share_within_its_part(
    make_engine: Callable[..., Engine],
) -> None:
    engine = make_engine(max_num_seqs=2, max_queue=4)
    await engine.start()

    def of(tenant: str, length: int) -> asyncio.Task[list[int]]:
        request = replace(ask([1, 2], max_tokens=length), tenant=tenant)
        return asyncio.create_task(tokens(engine, request))

    crowd = [of("crowd", 100) for _ in range(6)]
    await asyncio.sleep(0)
    others = [of("other", 3), of("other", 3)]
    answers = await asyncio.gather(*crowd, *others, return_exceptions=True)
    assert [len(each) for each in answers[6:] if isinstance(each, list)] == [3, 3]
    lost = [each for each in answers[:6] if isinstance(each, EngineBusyError)]
    assert len(lost) == 2
    assert all(error.gate == "queue" for error in lost)
    assert [type(each) for each in answers[4:6]] == [EngineBusyError] * 2, "the newest"
    assert await settles(engine)
