"""The image, and the tools that build and run it."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.deploy.image import Image, prepare
from tests.deploy.sandbox import Network

NO_ROOT = "needs root: buildah and bubblewrap change the user, and a network namespace is made"


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config) -> Path:
    """What `tests.deploy.tools` has unpacked."""
    folder: Path | None = pytestconfig.getoption("--deploy-tools")
    if folder is None:
        pytest.skip("--deploy-tools is not given; make test-deploy gives it")
    if os.geteuid():
        pytest.skip(NO_ROOT)
    return folder


@pytest.fixture(scope="session")
def bwrap(tools: Path) -> Path:
    return tools / "root" / "usr" / "bin" / "bwrap"


@pytest.fixture(scope="session")
def built(tools: Path) -> Image:
    """The target `cpu`."""
    return prepare(tools, "cpu")


@pytest.fixture(scope="module")
def network(bwrap: Path) -> Iterator[Network]:
    made = Network(bwrap)
    try:
        yield made
    finally:
        made.close()
