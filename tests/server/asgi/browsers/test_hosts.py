"""A page in a browser cannot ask the server under another name, nor from another site."""

from __future__ import annotations

import http.client
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import pytest

from server.config.settings import Settings
from tests.server.administered import ADMIN, KEY, Place, administered
from tests.server.http_server import Serving

READ = ("/v1/models", "/metrics", "/version", "/nowhere", "/admin/adapters")
PROBES = ("/live", "/ready", "/health")
WRITTEN = ("/v1/chat/completions", "/inference/oneseek", "/tokenize", "/admin/adapters")


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("hosts"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place) -> Iterator[Serving]:
    """On loopback, open to all, one name allowed."""
    with administered(place, place.settings(allowed_hosts=("own.example.com",))) as serving:
        yield serving


def ask(
    serving: Serving, method: str, path: str, headers: Mapping[str, str], body: bytes = b"", *, hosts: int = 1
) -> tuple[int, bytes]:
    address, _, port = serving.url.removeprefix("http://").partition(":")
    connection = http.client.HTTPConnection(address, int(port), timeout=20)
    try:
        connection.putrequest(method, path, skip_host=True)
        for _ in range(hosts):
            connection.putheader("Host", headers.get("Host", f"{address}:{port}"))
        for name, value in headers.items():
            if name != "Host":
                connection.putheader(name, value)
        if body:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        return answer.status, answer.read()
    finally:
        connection.close()


@pytest.mark.parametrize(
    "host", ["localhost", "LOCALHOST.:8000", "127.0.0.1", "127.3.2.1:9", "[::1]:8000", "own.example.com:443"]
)
def test_own_names_are_answered(serving: Serving, host: str) -> None:
    assert ask(serving, "GET", "/v1/models", {"Host": host})[0] == 200


@pytest.mark.parametrize("host", ["evil.example", "localhost.evil.example:8000", "0.0.0.0:8000", "10.0.0.7"])
def test_other_names_are_not(serving: Serving, host: str) -> None:
    """DNS rebinding: the page's own name leads here."""
    for method, paths in (("GET", READ), ("POST", WRITTEN), ("OPTIONS", WRITTEN)):
        for path in paths:
            status, body = ask(serving, method, path, {"Host": host, "Content-Type": "application/json"})
            assert (status, b"allowed_hosts" in body) == (421, True), (method, path)


@pytest.mark.parametrize("host", ["", "x/live?", "user@localhost", "localhost, evil.example", "[evil]"])
def test_what_is_no_host_is_refused(serving: Serving, host: str) -> None:
    assert ask(serving, "GET", "/v1/models", {"Host": host})[0] == 400


@pytest.mark.parametrize("hosts", [0, 2])
def test_a_request_has_one_host(serving: Serving, hosts: int) -> None:
    assert ask(serving, "GET", "/v1/models", {"Host": "localhost"}, hosts=hosts)[0] == 400


def test_a_target_in_absolute_form_changes_nothing(serving: Serving) -> None:
    assert ask(serving, "GET", "http://evil.example/v1/models", {"Host": "localhost"})[0] == 200
    assert ask(serving, "GET", "http://localhost/v1/models", {"Host": "evil.example"})[0] == 421


def test_probes_name_an_address_and_learn_nothing(serving: Serving) -> None:
    for headers in ({"Host": "10.1.2.3:8000"}, {"Host": "evil.example"}, {"Origin": "http://evil.example"}):
        for path in PROBES:
            status, body = ask(serving, "GET", path, headers)
            assert (status, b"adapters" in body, b"base" in body) == (200, False, False)
    assert b"adapters" in ask(serving, "GET", "/health", {})[1]


def own(serving: Serving) -> str:
    return serving.url


FOREIGN: tuple[dict[str, str], ...] = (
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost:1"},
    {"Origin": "http://127.0.0.1"},
    {"Origin": "file://"},
    {"Origin": "chrome-extension://abcdefgh"},
    {"Origin": ""},
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "odd"},
    {"Sec-Fetch-Site": "same-origin", "Origin": "http://evil.example"},
)


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
def test_pages_of_other_sites_are_refused(serving: Serving, headers: dict[str, str]) -> None:
    for method, paths in (("GET", READ), ("POST", WRITTEN), ("OPTIONS", WRITTEN)):
        for path in paths:
            status, body = ask(serving, method, path, {"Content-Type": "application/json", **headers})
            assert (status, b"cross_site" in body) == (403, True), (method, path)


def test_the_servers_own_page_passes(serving: Serving) -> None:
    body = b'{"text": "Hej", "max_tokens": 1}'
    json = {"Content-Type": "application/json"}
    proxied = {"Host": "own.example.com", "Origin": "https://own.example.com"}
    rewritten = {"Origin": "https://own.example.com", "Sec-Fetch-Site": "same-origin"}
    for headers in ({"Origin": own(serving)}, {"Sec-Fetch-Site": "same-origin"}, proxied, rewritten):
        assert ask(serving, "POST", "/inference/oneseek", json | headers, body)[0] == 200, headers
        assert ask(serving, "GET", "/v1/models", headers)[0] == 200


def test_the_address_bar_reads_and_changes_nothing(serving: Serving) -> None:
    typed = {"Sec-Fetch-Site": "none", "Content-Type": "application/json"}
    assert ask(serving, "GET", "/v1/models", typed)[0] == 200
    assert ask(serving, "POST", "/inference/oneseek", typed, b'{"text": "Hej"}')[0] == 403


@pytest.mark.parametrize("media_type", ["application/x-www-form-urlencoded", ""])
def test_a_form_comes_from_no_page(serving: Serving, media_type: str) -> None:
    body = b'{"text": "Hej", "max_tokens": 1}'
    form = {"Content-Type": media_type} if media_type else {}
    assert ask(serving, "POST", "/inference/oneseek", form, body)[0] == 200
    assert ask(serving, "POST", "/inference/oneseek", form | {"Origin": own(serving)}, body)[0] == 415


def test_keys_do_not_open_the_server_to_other_sites(place: Place) -> None:
    settings: Settings = place.settings(api_keys=(KEY,), admin_keys=(ADMIN,))
    with administered(place, settings) as serving:
        bearer = {"Authorization": f"Bearer {ADMIN}"}
        assert ask(serving, "GET", "/v1/models", bearer)[0] == 200
        assert ask(serving, "GET", "/v1/models", bearer | {"Host": "evil.example"})[0] == 421
        assert ask(serving, "GET", "/v1/models", bearer | {"Origin": "http://evil.example"})[0] == 403
        assert b"adapters" not in ask(serving, "GET", "/health", bearer | {"Host": "evil.example"})[1]


LINK = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}


def test_a_link_of_another_site_may_lead_to_the_page(serving: Serving) -> None:
    html = {"Accept": "text/html"}
    assert ask(serving, "GET", "/", LINK | html)[0] == 200
    refused: tuple[Mapping[str, str], ...] = (
        {"Sec-Fetch-Mode": "no-cors"},
        {"Sec-Fetch-Dest": "iframe"},
        {"Origin": "https://evil.example"},
    )
    for changes in refused:
        assert ask(serving, "GET", "/", {**LINK, **html, **changes})[0] == 403, changes
    assert ask(serving, "GET", "/", LINK | html | {"Host": "evil.example"})[0] == 421
    for path in ("/v1/models", "/page/app/main.js", "/docs"):
        assert ask(serving, "GET", path, LINK | html)[0] == 403
