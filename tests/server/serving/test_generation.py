"""Generation for several keys on one engine."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import RouteQuery, Router
from routing.settings import RoutingSettings
from server.config.settings import Settings
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.exchange import Exchange
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.request import Sampling
from server.serving.one_thread import OneThread
from server.serving.service import open_service
from server.text.tokenizer import Tokenizer
from tests.server.http_server import BASE, BASE_DIGEST

pytestmark = pytest.mark.anyio


async def test_a_key_with_one_request_waits_for_none_of_anothers_many(
    tiny_base: Path, voices: Mapping[str, Adapter], graphs: Path
) -> None:
    tokenizer, routing = Tokenizer.load(tiny_base), RoutingSettings()
    options = EmbeddedOptions(graphs=graphs, max_num_seqs=1, kv_tokens=1024, threads=1)
    engine = embedded_engine(tiny_base, BASE_DIGEST, tokenizer, options)
    runtime = Runtime(
        name=BASE,
        engine=engine,
        served=ServedAdapters(voices.values(), base_digest=BASE_DIGEST, base_name=BASE),
        router=Router(routing, ProfileDetector(routing)),
        tokenizer=tokenizer,
        metrics=Metrics(),
    )
    generation = open_service(Settings(), runtime, OneThread()).generation
    ended: list[str] = []

    async def ask(key: str) -> None:
        exchange = Exchange("r", tenant=key)
        resolution = await generation.choose(exchange, RouteQuery(model="base", turns=("x",)))
        sampling = Sampling(max_tokens=20, temperature=0.0, ignore_eos=True)
        async for _ in generation.generate(exchange, resolution, [(1, 9, 30)], [sampling], 1):
            pass
        ended.append(key)

    await engine.start()
    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(8):
                group.create_task(ask("many"))
            await asyncio.sleep(0)
            group.create_task(ask("one"))
    finally:
        await engine.close()
    assert ended.index("one") < 4
