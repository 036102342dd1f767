"""The engines under test. A new one joins by adding its name to `ENGINES` and a way to make it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from adapters.manifest import Adapter, read_manifest
from server.engines.base import Engine
from server.engines.embedded.launch import EmbeddedOptions, embedded_engine
from server.tokens import Tokenizer

ENGINES = ("embedded",)


@pytest.fixture(params=ENGINES)
def make_engine(
    request: pytest.FixtureRequest, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Engine]:
    graphs = tmp_path_factory.getbasetemp() / "graphs"

    def make(
        max_num_seqs: int = 32, max_queue: int = 2000, kv_tokens: int = 32 * 256, max_adapters: int = 64
    ) -> Engine:
        assert request.param == "embedded"
        options = EmbeddedOptions(
            graphs=graphs,
            max_num_seqs=max_num_seqs,
            max_num_batched_tokens=max(64, max_num_seqs),
            max_queue=max_queue,
            max_adapters=max_adapters,
            kv_tokens=kv_tokens,
            threads=2,
        )
        return embedded_engine(tiny_base, "sha256:" + "0" * 64, Tokenizer.load(tiny_base), options)

    return make


@pytest.fixture
async def engine(make_engine: Callable[..., Engine], voices: dict[str, Adapter]) -> AsyncIterator[Engine]:
    engine = make_engine()
    await engine.start()
    for adapter in voices.values():
        await engine.load(adapter)
    yield engine
    await engine.close()


@pytest.fixture(scope="session")
def voices(tiny_adapters: dict[str, Path]) -> dict[str, Adapter]:
    return {name: read_manifest(folder) for name, folder in tiny_adapters.items()}
