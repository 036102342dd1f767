from __future__ import annotations

from pathlib import Path

import pytest

from tests.deploy.kubernetes.made import Made
from tests.deploy.kubernetes.manifests import Tools


@pytest.fixture(scope="session")
def tools(pytestconfig: pytest.Config) -> Tools:
    return Tools(Path(str(pytestconfig.getoption("kubernetes"))))


@pytest.fixture(scope="session")
def made(tools: Tools, tmp_path_factory: pytest.TempPathFactory) -> Made:
    return Made(tools, tmp_path_factory.mktemp("overlay"))
