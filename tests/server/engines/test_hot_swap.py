"""An alias moves from one version to another and back, again and again, under streams that never pause."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from adapters.lora.manifest import Adapter, read_manifest
from adapters.registry.served import ServedAdapters
from routing.detect import ProfileDetector
from routing.route import Router
from routing.settings import RoutingSettings
from server.config.settings import Settings
from server.engines.base import Engine
from server.metrics.metrics import Metrics
from server.text.tokenizer import Tokenizer
from tests.server.engines.asking import alone, ask, collect
from tests.server.engines.making import BASE_DIGEST
from tests.server.http_server import one_base_app

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

STREAMS, ROUNDS, LENGTH = 16, 50, 16
BEGINNING = [1, *range(40, 103)]
"""What all prompts begin with: four pages of the prefix cache."""


@pytest.fixture(scope="module")
def versions(voices: dict[str, Adapter], make_adapter: Callable[..., Path]) -> dict[str, Adapter]:
    """By full name: two versions of `sv`, and `en`, which stays."""
    new = read_manifest(make_adapter("sv-new", 31), alias="sv", version="v1.2")
    old = replace(voices["sv"], alias="sv", version="v1.1")
    return {a.full_name: a for a in (old, new, replace(voices["en"], alias="en", version="v1.0"))}


@pytest.fixture
async def client(engine: Engine, served: ServedAdapters, tiny_base: Path) -> AsyncIterator[httpx.AsyncClient]:
    """The whole server around the engine, which runs already."""
    routing = RoutingSettings()
    router = Router(routing, ProfileDetector(routing))
    app = one_base_app(Settings(), engine, served, router, Tokenizer.load(tiny_base), "tiny", Metrics())
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://localhost", timeout=120) as client:
        yield client


@pytest.fixture
def served(versions: dict[str, Adapter]) -> ServedAdapters:
    return ServedAdapters(versions.values(), base_digest=BASE_DIGEST, base_name="tiny", active={"sv": "v1.1"})


async def answers_alone(engine: Engine, adapter: Adapter, prompts: list[list[int]]) -> list[str]:
    """What a digest says to each prompt when nothing else runs; a near-tie would prove nothing."""
    await engine.load(adapter)
    texts: list[str] = []
    for prompt in prompts:
        request = ask(prompt, alone(adapter), max_tokens=LENGTH, logprobs=2)
        deltas = await collect(engine, replace(request, continues=True))
        for score in (score for delta in deltas for score in delta.logprobs):
            (_, first), (_, second) = score.top[:2]
            assert first - second > 1e-4, "choose another prompt: rounding decides this one"
        texts.append("".join(delta.text for delta in deltas))
    return texts


async def stream(client: httpx.AsyncClient, model: str, prompt: list[int]) -> tuple[str, str, str]:
    """One streamed answer: digest and name by its receipt, and its text."""
    body = {
        "model": model,
        "prompt": prompt,
        "max_tokens": LENGTH,
        "temperature": 0,
        "ignore_eos": True,
        "stream": True,
    }
    answer = await client.post("/v1/completions", json=body)
    assert answer.status_code == 200, answer.text
    frames = [line.removeprefix("data: ") for line in answer.text.splitlines() if line.startswith("data: ")]
    assert frames[-1] == "[DONE]", answer.text
    text = "".join(choice["text"] for frame in frames[:-1] for choice in json.loads(frame)["choices"])
    return answer.headers["x-oneseek-adapter-digest"], answer.headers["x-oneseek-adapter"], text


async def test_a_hundred_swaps_under_load_mix_no_versions(
    engine: Engine, client: httpx.AsyncClient, served: ServedAdapters, versions: dict[str, Adapter]
) -> None:
    prompts = [[*BEGINNING, 7 * i + 3, 11 * i + 5] for i in range(8)]
    expected = {a.digest: await answers_alone(engine, a, prompts) for a in versions.values()}
    old, new, _ = expected.values()
    assert all(one != other for one, other in zip(old, new, strict=True))
    hits = engine.state().prefix_hits
    counts, swapping = Counter[str](), True

    async def ask_on(which: int) -> None:
        model = "en" if which % 4 == 0 else "sv"
        turn = which
        while swapping:
            turn += 1
            digest, name, text = await stream(client, model, prompts[turn % len(prompts)])
            assert versions[name].digest == digest
            assert text == expected[digest][turn % len(prompts)], f"{name} did not say this"
            counts[name] += 1

    async def swap() -> None:
        nonlocal swapping
        try:
            for _ in range(ROUNDS):
                for version in ("v1.2", "v1.1"):
                    await engine.load(served.resolve(f"sv@{version}"))
                    before = served.activate("sv", version)
                    await engine.unload(before.digest)
        finally:
            swapping = False

    async with asyncio.TaskGroup() as tasks:
        for which in range(STREAMS):
            tasks.create_task(ask_on(which))
        tasks.create_task(swap())

    assert set(counts) == set(versions)
    assert min(counts.values()) > ROUNDS
    assert engine.state().prefix_hits > hits
