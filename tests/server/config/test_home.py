"""Where the server keeps its state unless told otherwise."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.settings import default_home, resolve_settings


@pytest.mark.parametrize("platform", ["linux", "darwin", "win32"])
def test_home_is_where_each_system_keeps_such_things(platform: str) -> None:
    home = default_home({"LOCALAPPDATA": "C:/Users/a b/AppData/Local"}, platform)
    windows = Path("C:/Users/a b/AppData/Local/oneseek")
    assert home == (windows if platform == "win32" else Path.home() / ".oneseek")


def test_home_knows_the_tilde() -> None:
    assert resolve_settings(environ={"ONESEEK_HOME": "~/here"}).settings.home == Path.home() / "here"


def test_a_tilde_with_the_name_of_nobody_is_part_of_the_path() -> None:
    found = resolve_settings({"base_model": "~no-user-of-this-name/base"}, environ={})
    assert found.settings.base_model == Path("~no-user-of-this-name/base")
