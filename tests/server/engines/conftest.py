"""The engine under test: the one that `--engine` names, shared by a module and put right before each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from adapters.lora.manifest import Adapter, read_manifest
from server.engines.base import Engine
from server.text.tokenizer import Tokenizer
from tests.server.engines.asking import Asker, settles
from tests.server.engines.families import every, few, write_adapter, write_base
from tests.server.engines.making import ENGINES, EngineLimits


@pytest.fixture(scope="session")
def family(request: pytest.FixtureRequest) -> str:
    """`model_type` of the base: what a test asks for, else what `--family` names."""
    return str(getattr(request, "param", request.config.getoption("family")))


@pytest.fixture(scope="session")
def tiny_base(family: str, tiny_base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A random base of three layers of the family; context 256."""
    if family == "mistral":
        return tiny_base
    folder = tmp_path_factory.mktemp(family) / "base"
    return write_base(folder, family, Tokenizer.load(tiny_base).vocabulary_size, tiny_base)


@pytest.fixture(scope="session")
def make_adapter(
    family: str,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[..., Path]:
    """Makes a random adapter for `tiny_base`, of `few` of its targets unless said."""
    if family == "mistral":
        return make_adapter
    root = tmp_path_factory.mktemp(f"{family}-adapters")

    def make(
        name: str,
        seed: int,
        rank: int = 4,
        targets: tuple[str, ...] | None = None,
        scale: float = 0.3,
    ) -> Path:
        folder = root / name
        if not folder.exists():
            write_adapter(folder, tiny_base, seed, rank, targets or few(family), scale)
        return folder

    return make


@pytest.fixture(scope="session")
def tiny_adapters(family: str, make_adapter: Callable[..., Path]) -> dict[str, Path]:
    """Two adapters of different rank and targets."""
    return {"en": make_adapter("en", 1), "sv": make_adapter("sv", 2, rank=8, targets=every(family))}


@pytest.fixture(scope="session")
def voices(tiny_adapters: dict[str, Path]) -> dict[str, Adapter]:
    return {name: read_manifest(folder) for name, folder in tiny_adapters.items()}


@pytest.fixture(scope="session")
def new_engine(
    request: pytest.FixtureRequest,
    tiny_base: Path,
    voices: dict[str, Adapter],
    tmp_path_factory: pytest.TempPathFactory,
) -> Callable[[EngineLimits], Engine]:
    make, scratch = ENGINES[str(request.config.getoption("engine"))], tmp_path_factory.mktemp("engine")
    return lambda limits: make(tiny_base, scratch, list(voices.values()), limits)


@pytest.fixture
async def make_engine(new_engine: Callable[[EngineLimits], Engine]) -> AsyncIterator[Callable[..., Engine]]:
    """Makes an engine of the test's own, not started; takes the fields of `EngineLimits`."""
    made: list[Engine] = []

    def make(**limits: Any) -> Engine:
        made.append(new_engine(EngineLimits(**limits)))
        return made[-1]

    yield make
    for engine in made:
        await engine.close()


@pytest.fixture(scope="module")
async def shared_engine(new_engine: Callable[[EngineLimits], Engine]) -> AsyncIterator[Engine]:
    engine = new_engine(EngineLimits())
    await engine.start()
    yield engine
    await engine.close()


@pytest.fixture
async def engine(shared_engine: Engine, voices: dict[str, Adapter]) -> Engine:
    """An idle engine in which the two voices are resident and nothing else."""
    assert await settles(shared_engine, 30), "an earlier test left work behind"
    wanted = {adapter.digest for adapter in voices.values()}
    for digest in set(shared_engine.state().resident) - wanted:
        await shared_engine.unload(digest)
    for adapter in voices.values():
        await shared_engine.load(adapter)
    return shared_engine


@pytest.fixture(autouse=True)
def own_cache(request: pytest.FixtureRequest) -> Iterator[None]:
    Asker.salt = request.node.nodeid
    yield
    Asker.salt = ""
