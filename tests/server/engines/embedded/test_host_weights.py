"""Evicted adapters whose weights stay in memory: the next load reads no file."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter, read_manifest
from server.engines.embedded.launch.launch import embedded_engine
from server.engines.embedded.launch.options import EmbeddedOptions
from server.errors import AdapterRefusedError
from server.text.tokenizer import Tokenizer
from tests.server.engines.asking import alone, ask, tokens
from tests.server.engines.making import BASE_DIGEST

pytestmark = pytest.mark.anyio


async def test_what_is_kept_in_memory_is_loaded_without_its_files(
    tiny_base: Path, voices: dict[str, Adapter], tmp_path: Path
) -> None:
    options = EmbeddedOptions(
        graphs=tmp_path / "graphs",
        max_num_seqs=4,
        kv_tokens=1024,
        threads=1,
        max_adapters=1,
        max_cpu_adapters=2,
    )
    engine = embedded_engine(tiny_base, BASE_DIGEST, Tokenizer.load(tiny_base), options)
    shutil.copytree(voices["en"].path, tmp_path / "en-v1")
    en, sv = read_manifest(tmp_path / "en-v1"), voices["sv"]
    await engine.start()
    try:
        await engine.load(en)
        before = await tokens(engine, ask([3, 4, 5], alone(en)))
        shutil.rmtree(en.path)
        for _ in range(2):
            await engine.unload(en.digest, keep=True)
            assert engine.state().resident == {en.digest: "host"}
            await engine.load(sv)
            assert engine.state().resident == {en.digest: "host", sv.digest: "device"}
            await engine.unload(sv.digest)
            await engine.load(en)
            assert await tokens(engine, ask([3, 4, 5], alone(en))) == before
        await engine.unload(en.digest, keep=True)
        await engine.load(sv)
        await engine.unload(sv.digest, keep=True)
        assert engine.state().resident == {sv.digest: "host"}, (
            "one place beside the slots: the last one has it"
        )
        with pytest.raises(AdapterRefusedError):
            await engine.load(en)
        await engine.unload(sv.digest)
        assert engine.state().resident == {}
    finally:
        await engine.close()
