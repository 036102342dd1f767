"""A server that loads adapters; after each test, whatever the test loaded is gone."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.administered import Place, administered, unload, until
from tests.server.http_server import Serving


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    """An installation whose server finds one adapter in lora_adapters."""
    place = Place.make(tmp_path_factory.mktemp("loading"), tiny_base, make_adapter)
    shutil.copytree(make_adapter("load-0", 40), place.lora_adapters / "found-v1.0-SV")
    return place


@pytest.fixture(scope="module")
def serving(place: Place, engine_kind: str) -> Iterator[Serving]:
    with administered(place, place.settings(), engine=engine_kind) as serving:
        yield serving


@pytest.fixture
def more(place: Place) -> Callable[[int], Path]:
    return place.more


@pytest.fixture(autouse=True)
def clean(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test loaded is gone from names and engine when the next begins."""
    serving: Serving = request.getfixturevalue("serving")
    yield
    for adapter in serving.served.adapters():
        if adapter.alias != "found-sv":
            assert unload(serving.http, adapter.full_name).status_code == 200
    until(lambda: len(serving.engine.state().resident) == 1)
