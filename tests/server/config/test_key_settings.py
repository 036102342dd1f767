"""Keys among the settings: where they come from, what is none, and that none is shown."""

from __future__ import annotations

from pathlib import Path

import pytest

from server.config.settings import OPTIONS, Settings, resolve_settings
from server.config.values import SettingsError


@pytest.fixture(autouse=True)
def empty_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_keys_are_never_shown() -> None:
    found = resolve_settings(environ={"ONESEEK_API_KEYS": "first-secret,second-secret"})
    option = next(option for option in OPTIONS if option.path == "api_keys")
    assert found.settings.api_keys == ("first-secret", "second-secret")
    assert option.render(found.value(option)) == "2 given, not shown"
    assert "secret" not in repr(found.settings)
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={"ONESEEK_API_KEYS": "bad secret"})
    assert "bad secret" not in str(caught.value)
    Path("oneseek.yaml").write_text("api_keys: {my-secret: x}", encoding="utf-8")
    with pytest.raises(SettingsError) as caught:
        resolve_settings(environ={})
    assert "my-secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "keys", "warns"),
    [
        ("127.0.0.1", (), False),
        ("::1", (), False),
        ("localhost", (), False),
        ("0.0.0.0", (), True),
        ("::", (), True),
        ("gpu-7.example.org", (), True),
        ("0.0.0.0", ("k",), False),
    ],
)
def test_an_open_door_is_pointed_out(host: str, keys: tuple[str, ...], warns: bool) -> None:
    assert bool(Settings(host=host, api_keys=keys).warnings) is warns


@pytest.mark.parametrize("name", ["api_keys", "admin_keys", "metrics_keys"])
def test_a_variable_of_keys_that_is_set_has_keys(name: str) -> None:
    with pytest.raises(SettingsError, match=name):
        resolve_settings(environ={f"ONESEEK_{name.upper()}": ""})
    assert resolve_settings(environ={"ONESEEK_MAX_QUEUE": ""}).settings.max_queue == 256


@pytest.mark.parametrize("keys", [("",), ("a", ""), ("none",), ("a b",)])
def test_what_is_no_key_is_refused(keys: tuple[str, ...]) -> None:
    for name in ("api_keys", "admin_keys", "metrics_keys"):
        with pytest.raises(SettingsError, match=name):
            resolve_settings({name: keys}, environ={})


def test_each_kind_of_key_has_keys_of_its_own() -> None:
    with pytest.raises(SettingsError, match="metrics_keys"):
        Settings(api_keys=("a",), metrics_keys=("a",))
    with pytest.raises(SettingsError, match="metrics_keys"):
        Settings(admin_keys=("a",), metrics_keys=("a",))
