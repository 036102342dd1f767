"""What the settings name is found where they say."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.settings import Settings
from server.live.catalogue import open_catalogue
from tests.server.rolling import scaled


@pytest.mark.parametrize("entry", ["mine=~/mine-v1", "~/mine-v1"])
def test_an_adapter_may_lie_in_the_users_folder(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    scaled(tmp_path / "mine-v1", 0.5)
    settings = Settings(home=tmp_path / "home", adapters=(entry,))
    assert open_catalogue(settings, tmp_path).served.is_adapter("mine")
