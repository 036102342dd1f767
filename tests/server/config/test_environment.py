"""What is read of the environment, by a mapping of the test's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.training.loop.launch import ALONE, Launch
from server.config.environment import expand_home, home_folder, process_environment
from server.config.settings import resolve_settings


def test_the_users_folder_is_what_the_mapping_says(tmp_path: Path) -> None:
    assert home_folder({"HOME": str(tmp_path)}, "linux") == tmp_path
    assert home_folder({"USERPROFILE": str(tmp_path)}, "win32") == tmp_path
    assert home_folder({}, "linux") == Path.home()


@pytest.mark.parametrize(
    ("given", "expected"),
    [("~", "/users/a"), ("~/b/c", "/users/a/b/c"), ("b/~", "b/~"), ("/b", "/b"), ("", ".")],
)
def test_a_leading_tilde_is_the_users_folder(
    given: str, expected: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("server.config.environment.sys.platform", "linux")
    assert expand_home(given, {"HOME": "/users/a", "USERPROFILE": "/users/a"}) == Path(expected)


def test_settings_follow_the_mapping_and_not_the_process(tmp_path: Path) -> None:
    environ = {"HOME": str(tmp_path), "USERPROFILE": str(tmp_path), "ONESEEK_BASE_MODEL": "~/base"}
    found = resolve_settings(environ=environ, platform="linux").settings
    assert found.home == tmp_path / ".oneseek"
    assert found.base_model == tmp_path / "base"


def test_libraries_see_what_is_set_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ONESEEK_TEST", "a")
    assert process_environment()["ONESEEK_TEST"] == "a"


def test_what_a_launcher_says() -> None:
    assert Launch.read({}) == ALONE
    said = {"WORLD_SIZE": "4", "RANK": "3", "LOCAL_RANK": "1"}
    assert Launch.read(said) == Launch(processes=4, rank=3, local_rank=1)
