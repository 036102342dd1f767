"""What every engine promises of adapters: they come and go while it works, whole or not at all."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, asynccontextmanager
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import Adapter, read_manifest
from server.engines.base import Engine
from server.errors import (
    AdapterNotLoadedError,
    AdapterRefusedError,
)
from server.request import AdapterMix
from tests.server.engines.asking import (
    alone,
    ask,
    tokens,
)

pytestmark = pytest.mark.anyio


async def test_swapping_a_version_never_serves_the_old_one(
    make_engine: Callable[..., Engine], make_adapter: Callable[..., Path]
) -> None:
    old, new = (read_manifest(make_adapter(f"swap-{seed}", seed)) for seed in (21, 22))
    prompt = list(range(3, 90))
    engine = make_engine()
    await engine.start()
    await engine.load(old)
    before = await tokens(engine, ask(prompt, alone(old)))
    running = asyncio.create_task(tokens(engine, ask(prompt, alone(old), max_tokens=100)))
    await asyncio.sleep(0.01)
    await engine.load(new)
    unloading = asyncio.create_task(engine.unload(old.digest))
    after = await tokens(engine, ask(prompt, alone(new)))
    await unloading
    assert (await running)[: len(before)] == before
    assert after != before
    assert set(engine.state().resident) == engine.residents.open == {new.digest}
    with pytest.raises(AdapterNotLoadedError):
        await tokens(engine, ask(prompt, alone(old)))
    await engine.load(old)
    assert await tokens(engine, ask(prompt, alone(old))) == before
    assert await tokens(engine, ask(prompt, alone(new))) == after
    await engine.close()


@asynccontextmanager
async def crowd(engine: Engine, adapter_mix: AdapterMix) -> AsyncGenerator[None]:
    """Seconds of work for a voice, given up at the end."""
    asked = [
        asyncio.create_task(tokens(engine, ask([1, i], adapter_mix, max_tokens=250))) for i in range(200)
    ]
    while not engine.state().running:
        await asyncio.sleep(0.001)
    yield
    for task in asked:
        task.cancel()
    await asyncio.gather(*asked, return_exceptions=True)


async def test_an_unload_that_waits_holds_up_no_other_adapter(
    engine: Engine, voices: dict[str, Adapter], make_adapter: Callable[..., Path]
) -> None:
    en, other = voices["en"], read_manifest(make_adapter("beside", 23))
    async with crowd(engine, alone(en)):
        unloading = asyncio.create_task(engine.unload(en.digest))
        await asyncio.sleep(0)
        await asyncio.wait_for(engine.load(other), 100)
        assert not unloading.done()
        assert set(engine.state().resident) == {voices["sv"].digest, other.digest}
        with pytest.raises(AdapterNotLoadedError):
            await tokens(engine, ask([1, 2], alone(en)))
        again = asyncio.create_task(engine.load(en))
    await asyncio.gather(unloading, again)
    assert en.digest in engine.state().resident
    assert len(await tokens(engine, ask([1, 2], alone(en)))) == 12


async def test_a_client_that_stalls_holds_up_no_unload(engine: Engine, voices: dict[str, Adapter]) -> None:
    en = voices["en"]
    async with aclosing(engine.generate(ask([1, 2], alone(en), max_tokens=50))) as unread:
        first = await anext(unread)
        await asyncio.wait_for(engine.unload(en.digest), 20)
        rest = [token async for delta in unread for token in delta.token_ids]
    assert len(first.token_ids) + len(rest) == 50


async def test_an_unload_that_is_cancelled_changes_nothing(
    engine: Engine, voices: dict[str, Adapter]
) -> None:
    en = voices["en"]
    before = await tokens(engine, ask([1, 9, 30], alone(en)))
    async with crowd(engine, alone(en)):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(engine.unload(en.digest), 0.05)
        assert en.digest in engine.state().resident
    assert await tokens(engine, ask([1, 9, 30], alone(en))) == before
    await asyncio.wait_for(engine.unload(en.digest), 20)
    assert en.digest not in engine.state().resident


async def leaves(engine: Engine, digest: str) -> None:
    """Wait until `digest` is not resident. The figures of replicas may be half a second old."""
    async with asyncio.timeout(2):
        while digest in engine.state().resident:
            await asyncio.sleep(0.01)


async def test_a_load_that_is_cancelled_changes_nothing(engine: Engine, voices: dict[str, Adapter]) -> None:
    en = voices["en"]
    prompt = [1, 9, 30]
    before = await tokens(engine, ask(prompt, alone(en)))
    busy = asyncio.create_task(tokens(engine, ask([1], max_tokens=250)))
    cancelled = 0
    for turns in range(60):
        await engine.unload(en.digest)
        loading = asyncio.create_task(engine.load(en))
        for _ in range(turns):
            await asyncio.sleep(0.0003)
        loading.cancel()
        try:
            await loading
        except asyncio.CancelledError:
            cancelled += 1
            await leaves(engine, en.digest)
        if busy.done():
            busy = asyncio.create_task(tokens(engine, ask([1], max_tokens=250)))
    assert cancelled > 1
    await busy
    assert engine.state().alive
    await engine.load(en)
    assert await tokens(engine, ask(prompt, alone(en))) == before


async def test_a_bad_adapter_is_refused_and_nothing_changes(
    engine: Engine, tiny_adapters: dict[str, Path], tmp_path: Path
) -> None:
    folder = tmp_path / "broken"
    shutil.copytree(tiny_adapters["en"], folder)
    weights = load_file(folder / "adapter_model.safetensors")
    key = next(key for key in weights if "lora_B" in key)
    weights[key] = np.full_like(weights[key], np.nan)
    save_file(weights, folder / "adapter_model.safetensors")
    resident = dict(engine.state().resident)
    digest = adapter_digest(folder)
    broken = read_manifest(folder)
    assert broken.digest == digest
    with pytest.raises(AdapterRefusedError, match="broken"):
        await engine.load(broken)
    assert engine.state().resident == resident
    with pytest.raises(AdapterNotLoadedError):
        await tokens(engine, ask([1, 2], alone(broken)))


async def test_no_more_adapters_are_held_than_it_says(
    make_engine: Callable[..., Engine], voices: dict[str, Adapter]
) -> None:
    engine, (en, sv) = make_engine(max_adapters=1), voices.values()
    assert engine.info.max_adapters == 1
    await engine.start()
    outcomes = await asyncio.gather(engine.load(en), engine.load(sv), return_exceptions=True)
    assert [isinstance(outcome, AdapterRefusedError) for outcome in outcomes].count(True) == 1
    loaded, refused = (en, sv) if outcomes[0] is None else (sv, en)
    async with crowd(engine, alone(loaded)):
        unloading = asyncio.create_task(engine.unload(loaded.digest))
        await asyncio.sleep(0)
        with pytest.raises(AdapterRefusedError):
            await engine.load(refused)
    await unloading
    await engine.load(refused)
    assert set(engine.state().resident) == {refused.digest}
    await engine.close()


async def test_an_unknown_adapter_is_an_error_never_the_base(engine: Engine) -> None:
    with pytest.raises(AdapterNotLoadedError):
        await tokens(engine, ask([1, 2], (("sha256:" + "f" * 64, 1.0),)))


async def test_a_blend_differs_from_its_parts(engine: Engine, voices: dict[str, Adapter]) -> None:
    if not engine.info.blends:
        pytest.skip("this engine refuses blends")
    prompt, (en, sv) = [1, 17, 40, 99, 7], (voices["en"].digest, voices["sv"].digest)
    blend = await tokens(engine, ask(prompt, tuple(sorted(((en, 0.5), (sv, 0.5))))))
    whole = await tokens(engine, ask(prompt, tuple(sorted(((en, 1.0), (sv, 1e-7))))))
    assert whole == await tokens(engine, ask(prompt, ((en, 1.0),)))
    assert blend != whole
