"""An installation with an empty registry, and a server over it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.server.administered import Place, administered
from tests.server.http_server import Serving


@pytest.fixture
def place(tmp_path: Path, tiny_base: Path, make_adapter: Callable[..., Path]) -> Place:
    return Place.make(tmp_path, tiny_base, make_adapter)


@pytest.fixture
def serving(place: Place) -> Iterator[Serving]:
    """A server that never looks at the registry by itself."""
    with administered(place, place.settings()) as serving:
        yield serving
