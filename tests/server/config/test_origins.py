"""Which pages of other origins may ask."""

from __future__ import annotations

import pytest

from server.config.origins import CorsOrigins
from server.config.settings import Settings, resolve_settings
from server.config.values import SettingsError


@pytest.mark.parametrize(
    ("entry", "origin"),
    [
        ("https://app.example.com", "https://app.example.com"),
        ("HTTPS://App.Example.com:443/", "https://app.example.com"),
        ("http://localhost:5173", "http://localhost:5173"),
        ("http://[::1]:8080", "http://[::1]:8080"),
        ("tauri://localhost", "tauri://localhost"),
        ("chrome-extension://abcdef", "chrome-extension://abcdef"),
    ],
)
def test_an_origin_allows_itself_alone(entry: str, origin: str) -> None:
    origins = CorsOrigins.parse([entry])
    assert origins
    assert origins.allows(origin)
    scheme, _, host = origin.partition("://")
    for other in (
        "null",
        "",
        f"{scheme}://evil.{host}",
        f"{origin}.evil.example",
        f"{origin}1",
        "https://evil",
    ):
        assert not origins.allows(other)


def test_a_star_allows_all_and_nothing_allows_none() -> None:
    assert CorsOrigins.parse(["*"]).allows("https://anywhere.example")
    assert not CorsOrigins()
    assert not CorsOrigins().allows("https://anywhere.example")


@pytest.mark.parametrize(
    "entry",
    [
        "null",
        "app.example.com",
        "https://",
        "https://*.example.com",
        "https://a/b",
        "https://a:99999",
        "https://a b",
    ],
)
def test_what_is_no_origin_stops_the_start(entry: str) -> None:
    with pytest.raises(SettingsError) as error:
        Settings(cors_origins=(entry,))
    assert error.value.name == "cors_origins"
    assert repr(entry) in error.value.problem


def test_any_page_without_a_key_is_warned_of() -> None:
    found = resolve_settings({"cors_origins": "*"}, {}).settings
    assert any("cors_origins" in warning for warning in found.warnings)
    assert not Settings(cors_origins=("*",), api_keys=("key",)).warnings
    assert not Settings(cors_origins=("https://app.example.com",)).warnings
