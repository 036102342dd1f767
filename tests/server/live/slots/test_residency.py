"""Adapters that come and go under requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import RouteQuery, Router
from routing.settings import LanguageRow, RoutingSettings
from server.api.rendering.error_replies import reply_for
from server.config.settings import Settings
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.errors import AdapterNotLoadedError, AdapterRefusedError, EngineDeadError
from server.exchange import Exchange
from server.live.runtime import Runtime
from server.metrics.metrics import Metrics
from server.request import Delta, GenerationRequest, Sampling
from server.serving.one_thread import OneThread
from server.serving.resolution import Resolution
from server.serving.service import BaseService, open_service
from server.text.tokenizer import Tokenizer
from tests.server.http_server import BASE, BASE_DIGEST, EN, SV

pytestmark = pytest.mark.anyio
PROMPT = (1, 9, 30)


@pytest.fixture
async def service(tiny_base: Path, voices: Mapping[str, Adapter], graphs: Path) -> AsyncIterator[BaseService]:
    tokenizer = Tokenizer.load(tiny_base)
    options = EmbeddedOptions(graphs=graphs, max_num_seqs=4, kv_tokens=1024, threads=1)
    engine = embedded_engine(tiny_base, BASE_DIGEST, tokenizer, options)
    routing = RoutingSettings(languages=(LanguageRow("en", EN), LanguageRow("sv", SV)))
    await engine.start()
    runtime = Runtime(
        name=BASE,
        engine=engine,
        served=ServedAdapters(voices.values(), base_digest=BASE_DIGEST, base_name=BASE),
        router=Router(routing, ProfileDetector(routing)),
        tokenizer=tokenizer,
        metrics=Metrics(),
    )
    yield open_service(Settings(), runtime, OneThread())
    await engine.close()


async def answers(service: BaseService, resolution: Resolution, n: int, length: int = 8) -> list[list[int]]:
    """The tokens of each of `n` choices."""
    sampling = Sampling(max_tokens=length, temperature=0.0, ignore_eos=True)
    choices: list[list[int]] = [[] for _ in range(n)]
    async for batch in service.generation.generate(Exchange("r"), resolution, [PROMPT], [sampling], n):
        for index, delta in batch:
            choices[index] += delta.token_ids
    return choices


@pytest.mark.parametrize("n", [1, 3])
async def test_an_adapter_that_left_since_it_was_chosen_is_loaded_again(service: BaseService, n: int) -> None:
    resolution = await service.generation.choose(Exchange("r"), RouteQuery(model=SV))
    before = await answers(service, resolution, n)
    await service.runtime.engine.unload(resolution.digest)
    assert resolution.digest not in service.runtime.engine.state().resident
    assert await answers(service, resolution, n) == before
    assert resolution.digest in service.runtime.engine.state().resident
    loads = service.runtime.metrics.registry.get_sample_value(
        "oneseek_adapter_loads_total", {"adapter": SV, "outcome": "ok"}
    )
    assert loads == 2


async def test_an_adapter_that_leaves_each_time_is_tried_twice_and_then_a_503(
    service: BaseService, monkeypatch: pytest.MonkeyPatch
) -> None:
    resolution = await service.generation.choose(Exchange("r"), RouteQuery(model=SV))
    generate, tried = service.runtime.engine.generate, 0

    async def leaving(request: GenerationRequest) -> AsyncGenerator[Delta]:
        nonlocal tried
        tried += 1
        await service.runtime.engine.unload(resolution.digest)
        async for delta in generate(request):
            yield delta

    monkeypatch.setattr(service.runtime.engine, "generate", leaving)
    with pytest.raises(AdapterNotLoadedError) as caught:
        await answers(service, resolution, 1)
    assert tried == 2
    reply = reply_for(caught.value)
    assert (reply.status, reply.code) == (503, "adapter_not_loaded")
    assert int(reply.headers["Retry-After"]) >= 1
    assert resolution.digest not in reply.message


async def test_a_client_that_leaves_does_not_end_the_load_that_others_wait_for(
    service: BaseService, voices: Mapping[str, Adapter]
) -> None:
    adapter = voices["sv"]
    first = asyncio.create_task(service.runtime.residency.ensure(adapter))
    second = asyncio.create_task(service.runtime.residency.ensure(adapter))
    await asyncio.sleep(0)
    first.cancel()
    await second
    assert adapter.digest in service.runtime.engine.state().resident
    assert first.cancelled()


async def test_a_request_waits_for_an_adapter_within_bounds(
    service: BaseService, voices: Mapping[str, Adapter], monkeypatch: pytest.MonkeyPatch
) -> None:
    adapter, residency, engine = voices["sv"], service.runtime.residency, service.runtime.engine
    await residency.ensure(adapter)
    resolution = await service.generation.choose(Exchange("r"), RouteQuery(model=f"{SV}@{adapter.version}"))
    busy = asyncio.create_task(answers(service, resolution, 30, length=240))
    while not engine.state().running:
        await asyncio.sleep(0.001)
    unloading = asyncio.create_task(engine.unload(adapter.digest))
    await asyncio.sleep(0)
    monkeypatch.setattr("server.live.slots.residency.PATIENCE", 0.02)
    with pytest.raises(AdapterNotLoadedError):
        await residency.ensure(adapter)
    monkeypatch.undo()
    waiting = asyncio.create_task(residency.ensure(adapter))
    await asyncio.sleep(0)
    busy.cancel()
    await asyncio.gather(unloading, waiting)
    assert adapter.digest in engine.state().resident


async def test_a_load_that_did_not_come_to_its_end_is_not_counted_as_refused(
    service: BaseService, voices: Mapping[str, Adapter]
) -> None:
    runtime = service.runtime

    def outcomes(alias: str) -> dict[str, float]:
        names = ("ok", "refused", "engine_dead", "cancelled", "failed")
        found = {
            name: runtime.metrics.registry.get_sample_value(
                "oneseek_adapter_loads_total", {"adapter": alias, "outcome": name}
            )
            for name in names
        }
        return {name: value for name, value in found.items() if value}

    before = asyncio.all_tasks()
    waiting = asyncio.create_task(runtime.residency.ensure(voices["sv"]))
    for _ in range(3):  # until the load has begun
        await asyncio.sleep(0)
    (load,) = asyncio.all_tasks() - before - {waiting}
    load.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert outcomes(SV) == {"cancelled": 1}
    await runtime.engine.close()
    with pytest.raises(EngineDeadError):
        await runtime.residency.ensure(voices["en"])
    assert outcomes(EN) == {"engine_dead": 1}


async def test_files_that_vanish_are_a_refusal_without_a_path(
    service: BaseService, voices: Mapping[str, Adapter], tmp_path: Path
) -> None:
    gone = replace(voices["en"], path=tmp_path / "gone")
    with pytest.raises(AdapterRefusedError) as caught:
        await service.runtime.residency.ensure(gone)
    assert str(tmp_path) not in str(caught.value)
    await service.runtime.residency.load_all([gone, voices["sv"]])
    assert set(service.runtime.engine.state().resident) == {voices["sv"].digest}
