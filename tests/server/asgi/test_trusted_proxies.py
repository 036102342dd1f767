"""Who a client behind a proxy is: `X-Forwarded-For` counts from proxies that the settings name."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.asgi.wrong_keys import BURST
from server.config.settings import resolve_settings
from server.config.values import SettingsError
from tests.server.administered import KEY, Place, administered

Statuses = Callable[[str, int], list[int]]


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("proxies"), tiny_base, make_adapter)


@pytest.fixture
def statuses(place: Place, request: pytest.FixtureRequest) -> Iterator[Statuses]:
    """Asks a server that trusts `request.param` with wrong keys, for clients that the header names."""
    settings = place.settings(api_keys=(KEY,), trusted_proxies=request.param)
    with administered(place, settings) as serving, httpx.Client(base_url=serving.url) as client:

        def ask(forwarded_for: str, times: int) -> list[int]:
            headers = {"Authorization": "Bearer wrong", "X-Forwarded-For": forwarded_for}
            return [client.get("/v1/models", headers=headers).status_code for _ in range(times)]

        yield ask


@pytest.mark.parametrize("statuses", [("127.0.0.1",), ("10.0.0.0/8", "127.0.0.0/8")], indirect=True)
def test_clients_of_a_trusted_proxy_are_told_apart(statuses: Statuses) -> None:
    assert statuses("203.0.113.1", BURST + 1) == [401] * BURST + [429]
    assert statuses("203.0.113.2", 1) == [401]
    # What a client wrote itself stands before the address that the proxy adds.
    assert statuses("203.0.113.2, 203.0.113.1", 1) == [429]
    # Two proxies in a row: the one that is trusted too is passed over.
    assert statuses("203.0.113.1, 127.0.0.1", 1) == [429]


@pytest.mark.parametrize("statuses", [(), ("10.0.0.0/8",)], indirect=True)
def test_the_header_of_anybody_else_is_ignored(statuses: Statuses) -> None:
    assert statuses("203.0.113.1", BURST + 1) == [401] * BURST + [429]
    assert statuses("203.0.113.2", 1) == [429]


@pytest.mark.parametrize("text", ["*", "proxy.example.com", "10.0.0.1/8", "127.0.0.1:80"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(SettingsError, match="trusted_proxies"):
        resolve_settings({"trusted_proxies": text}, environ={})
