"""One server for all tests of the HTTP surface."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adapters.lora.manifest import Adapter, read_manifest
from server.config.settings import Settings
from tests.server.http_server import EN, SV, Serving, make_app, served


@pytest.fixture(scope="session")
def voices(make_adapter: Callable[..., Path]) -> dict[str, Adapter]:
    """Three versions of two aliases, each a different random adapter."""
    every = ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj")
    return {
        "en": read_manifest(make_adapter("en", 1), alias=EN, version="v1.1", language="en"),
        "sv": read_manifest(
            make_adapter("sv", 2, rank=8, targets=every), alias=SV, version="v1.1", language="sv"
        ),
        "sv-old": read_manifest(make_adapter("sv-old", 3), alias=SV, version="v1.0", language="sv"),
    }


@pytest.fixture(scope="session")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("graphs")


@pytest.fixture(scope="session")
def engine_kind(pytestconfig: pytest.Config) -> str:
    """What `--engine` names: the tests that ask for it run on either engine."""
    return str(pytestconfig.getoption("engine"))


@pytest.fixture(scope="session")
def serving(tiny_base: Path, voices: dict[str, Adapter], graphs: Path, engine_kind: str) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=8, max_queue=64, log_level="warning", drain_seconds=2)
    with served(
        make_app(tiny_base, voices, graphs, settings, engine=engine_kind), settings, voices
    ) as serving:
        yield serving


@pytest.fixture
def client(serving: Serving) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=serving.url, timeout=60) as client:
        yield client
