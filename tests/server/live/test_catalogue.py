"""What the settings name is found where they say."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from adapters.bases import SHIPPED
from server.config.settings import Settings
from server.live.catalogue import open_catalogue
from tests.server.rolling import scaled


def test_a_folder_with_two_sets_of_weights_is_named_once(tmp_path: Path) -> None:
    base = shutil.copytree(SHIPPED / "base", tmp_path / "base")
    settings = Settings(home=tmp_path / "home", base_model=base)
    before = open_catalogue(settings, tmp_path)
    (base / "model.safetensors.index.json").write_text('{"weight_map": {"x": "gone.safetensors"}}')
    after = open_catalogue(settings, tmp_path)
    assert after.served.base_digest == before.served.base_digest
    assert not before.notes
    assert len([note for note in after.notes if str(base) in note]) == 1


@pytest.mark.parametrize("entry", ["mine=~/mine-v1", "~/mine-v1"])
def test_an_adapter_may_lie_in_the_users_folder(
    entry: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("HOME", "USERPROFILE"):
        monkeypatch.setenv(variable, str(tmp_path))
    scaled(tmp_path / "mine-v1", 0.5)
    settings = Settings(home=tmp_path / "home", adapters=(entry,))
    assert open_catalogue(settings, tmp_path).served.is_adapter("mine")
