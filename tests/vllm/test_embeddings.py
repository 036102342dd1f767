"""A base that vLLM runs as an embedding model: vectors of the base and of its adapters, and no text."""

from __future__ import annotations

import math
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from adapters.lora.manifest import Adapter, read_manifest
from server.engines.base import Engine
from server.engines.vllm.options import VllmOptions
from server.errors import AdapterNotLoadedError, UnsupportedRequestError
from server.request import AdapterMix, EmbeddingRequest, GenerationRequest, Sampling
from server.text.tokenizer import Tokenizer
from tests.server.engines.making import BASE_DIGEST, VLLM_BLOCK

pytestmark = [pytest.mark.anyio, pytest.mark.slow]

PROMPT = (1, 17, 40, 99, 7)


@pytest.fixture(scope="module")
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture(scope="module")
def adapter(tiny_adapters: dict[str, Path]) -> Adapter:
    return read_manifest(tiny_adapters["sv"])


@pytest.fixture(scope="module")
async def engine(tiny_base: Path, adapter: Adapter, anyio_backend: str) -> AsyncIterator[Engine]:
    from server.engines.vllm.core import vllm_engine

    extra = {"runner": "pooling", "dtype": "float32", "enforce_eager": "true", "block_size": str(VLLM_BLOCK)}
    options = VllmOptions(base=tiny_base, base_name="tiny", max_num_seqs=8, extra=extra)
    engine = vllm_engine(options, BASE_DIGEST, Tokenizer.load(tiny_base), [adapter])
    await engine.start()
    await engine.load(adapter)
    yield engine
    await engine.close()


async def vector(engine: Engine, name: str, adapter_mix: AdapterMix = ()) -> tuple[float, ...]:
    return await engine.embed(EmbeddingRequest(request_id=name, prompt=PROMPT, adapter_mix=adapter_mix))


async def test_a_text_has_one_vector_of_unit_length(engine: Engine) -> None:
    assert engine.info.task == "embed"
    first, again = await vector(engine, "a"), await vector(engine, "b")
    assert math.isclose(sum(value * value for value in first), 1.0, rel_tol=1e-5)
    assert first == pytest.approx(again, abs=1e-5)


async def test_an_adapter_gives_another_vector(engine: Engine, adapter: Adapter) -> None:
    base = await vector(engine, "c")
    own = await vector(engine, "d", ((adapter.digest, 1.0),))
    assert len(own) == len(base)
    assert max(abs(one - other) for one, other in zip(own, base, strict=True)) > 1e-4


async def test_an_adapter_that_is_not_resident_is_an_error(engine: Engine) -> None:
    with pytest.raises(AdapterNotLoadedError):
        await vector(engine, "e", (("sha256:" + "f" * 64, 1.0),))


async def test_it_generates_no_text(engine: Engine) -> None:
    request = GenerationRequest(request_id="f", prompt=PROMPT, sampling=Sampling(max_tokens=1))
    with pytest.raises(UnsupportedRequestError):
        await anext(engine.generate(request))
