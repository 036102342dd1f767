"""Who may change adapters: nobody until `admin_keys` is set, and then nobody but who holds one of them."""

from __future__ import annotations

import hashlib
import hmac
import http.client
import re
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest
from starlette.routing import Route
from starlette.types import Message, Receive, Scope, Send

from server.asgi.middleware import ADMIN_PATHS, ApiKeys, HeaderLimits, is_admin_path, open_exchange
from server.config.settings import Settings
from server.config.values import SettingsError
from server.errors import ApiError
from server.exchange import EXCHANGE
from tests.server.administered import ADMIN, KEY, Place, administered
from tests.server.http_server import Serving

ORDINARY = ("/v1/models", "/health", "/nowhere")
GUARDED = (
    ("GET", "/admin"),
    ("GET", "/admin/"),
    ("GET", "/admin/adapters"),
    ("GET", "/admin/adapters/found-sv"),
    ("GET", "/admin/nowhere"),
    ("POST", "/admin/adapters"),
    ("POST", "/admin/adapters/found-sv@v1.0/promote"),
    ("POST", "/v1/load_lora_adapter"),
    ("POST", "/v1/unload_lora_adapter"),
    ("GET", "/v1/load_lora_adapter"),
    ("OPTIONS", "/admin/adapters"),
)
PRESENTED = {
    "none": {},
    "wrong": {"Authorization": "Bearer wrong"},
    "empty": {"Authorization": "Bearer"},
    "basic": {"Authorization": f"Basic {ADMIN}"},
    "key": {"Authorization": f"Bearer {KEY}"},
    "admin": {"Authorization": f"Bearer {ADMIN}"},
}


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    place = Place.make(tmp_path_factory.mktemp("keys"), tiny_base, make_adapter)
    shutil.copytree(make_adapter("load-0", 40), place.lora_adapters / "found-v1.0-SV")
    return place


@pytest.fixture(scope="module", params=["open", "keys", "admin", "both"])
def guarded(request: pytest.FixtureRequest, place: Place) -> Iterator[tuple[str, Serving]]:
    kind = str(request.param)
    settings = place.settings(
        api_keys=(KEY, "another") if kind in ("keys", "both") else (),
        admin_keys=("another-admin", ADMIN) if kind in ("admin", "both") else (),
    )
    with administered(place, settings) as serving:
        yield kind, serving


def guarded_status(kind: str, who: str) -> int:
    """What an admin path answers before anything else is looked at; 0: it passes."""
    admin, keys = kind in ("admin", "both"), kind in ("keys", "both")
    if admin and who == "admin":
        return 0
    known = keys and who == "key"
    return 403 if known or not (keys or admin) else 401


@pytest.mark.parametrize("who", PRESENTED)
def test_who_may_do_what(guarded: tuple[str, Serving], who: str) -> None:
    kind, serving = guarded
    with httpx.Client(base_url=serving.url, headers=PRESENTED[who]) as client:
        for method, path in GUARDED:
            answer = client.request(method, path)
            expected = guarded_status(kind, who)
            if expected:
                assert answer.status_code == expected, (method, path)
                told = answer.json()["error"]
                assert told["code"] == {401: "invalid_api_key", 403: "admin_key_needed"}[expected]
                assert "admin_keys" in told["message"] or expected == 401
                assert ("WWW-Authenticate" in answer.headers) is (expected == 401)
            else:
                assert answer.status_code not in (401, 403), (method, path)
        passes = kind in ("open", "admin") or who == "key" or (kind == "both" and who == "admin")
        for path in ORDINARY:
            wanted = 200 if passes or path == "/health" else 401
            wanted = 404 if path == "/nowhere" and passes else wanted
            assert client.get(path).status_code == wanted, path
        # A tenant's key does not open what tells of all tenants.
        metrics = 403 if kind in ("keys", "both") and who == "key" else 200 if passes else 401
        assert client.get("/metrics").status_code == metrics


def test_no_spelling_of_a_path_gets_past(guarded: tuple[str, Serving]) -> None:
    """Paths as a client may send them, past any client library that would tidy them."""
    kind, serving = guarded
    host, _, port = serving.url.removeprefix("http://").partition(":")
    spellings = (
        "/%61dmin/adapters",
        "/admin%2Fadapters",
        "//admin/adapters",
        "/v1/../admin/adapters",
        "/live/../admin/adapters",
        "/admin/adapters?x=/live",
        "/admin/adapters;/live",
        "/admin/adapters#/live",
        "/ADMIN/adapters",
        "http://x/live/../admin/adapters",
    )
    for spelling in spellings:
        for extra in ({}, {"Host": "x/live?"}, {"X-Forwarded-Prefix": "/live"}, {"X-Original-URL": "/live"}):
            connection = http.client.HTTPConnection(host, int(port), timeout=10)
            connection.putrequest("GET", spelling, skip_host="Host" in extra)
            for name, value in extra.items():
                connection.putheader(name, value)
            connection.endheaders()
            answer = connection.getresponse()
            status, body = answer.status, answer.read()
            connection.close()
            assert status in (400, 401, 403, 404, 421), (kind, spelling, status)
            assert b'"data"' not in body


def test_every_endpoint_that_changes_something_is_guarded(guarded: tuple[str, Serving]) -> None:
    _, serving = guarded
    app = serving.server.config.app
    routes: list[Route] = [route for route in app.routes if isinstance(route, Route)]  # pyright: ignore
    admin = {route.path for route in routes if "admin" in route.path or "lora" in route.path}
    assert len(admin) >= 8
    assert all(is_admin_path(path) for path in admin)
    assert admin >= ADMIN_PATHS


def test_an_admin_key_is_a_key_of_its_own() -> None:
    with pytest.raises(SettingsError, match="admin_keys"):
        Settings(api_keys=("a", "b"), admin_keys=("c", "b"))
    with pytest.raises(SettingsError, match="admin_keys"):
        Settings(admin_keys=("with space",))
    with pytest.raises(SettingsError, match="adapter_roots"):
        Settings(adapter_roots=("lora_adapters", " "))
    assert "secret" not in repr(Settings(admin_keys=("secret",)))


def test_of_several_headers_under_one_name_the_first_counts() -> None:
    async def send(_message: Message) -> None: ...

    headers = [(b"x-oneseek-adapter", b"first"), (b"x-request-id", b"id"), (b"x-oneseek-adapter", b"second")]
    scope: Scope = {"type": "http", "headers": headers}
    exchange = open_exchange(scope, send)
    assert scope[EXCHANGE] is exchange
    assert exchange.request_id == "id"
    assert exchange.headers == {b"x-oneseek-adapter": "first", b"x-request-id": "id"}


@pytest.mark.anyio
async def test_every_key_is_compared_in_constant_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever key is presented, so that the time says nothing of which one matched."""
    compared: list[bytes] = []

    def compare(presented: bytes, known: bytes) -> bool:
        compared.append(known)
        return presented == known

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None: ...

    monkeypatch.setattr(hmac, "compare_digest", compare)
    keys = [key.encode() for key in ("first", "second", "admin")]
    layer = ApiKeys(app, ("first", "second"), ("admin",))
    for key in keys:
        compared.clear()
        scope: Scope = {"type": "http", "path": "/live", "headers": [(b"authorization", b"Bearer " + key)]}
        open_exchange(scope, send)
        await layer(scope, receive, send)
        assert scope[EXCHANGE].tenant
        assert sorted(compared) == sorted(hashlib.sha256(key).digest() for key in keys)


async def status_of(path: str, *headers: tuple[bytes, bytes], admins: Sequence[str] = ("admin",)) -> int:
    """What `ApiKeys` with the key `first` answers to a path by itself; 200: it lets the request pass."""

    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None: ...

    scope: Scope = {"type": "http", "path": path, "headers": list(headers)}
    open_exchange(scope, send)
    try:
        await ApiKeys(app, ("first",), admins)(scope, receive, send)
    except ApiError as error:
        return error.reply.status
    return 200


@pytest.mark.anyio
async def test_a_closed_path_stays_closed_whatever_the_host_says() -> None:
    for host in (b"x/live?", b"localhost/health#", b"x/ready/", b"/live"):
        for path in ("/v1/models", "/metrics", "/version", "/nowhere", "", "/live/", "/health/x"):
            assert await status_of(path, (b"host", host)) == 401, (host, path)
    for path in ("/live", "/ready", "/health"):
        assert await status_of(path) == 200


@pytest.mark.anyio
async def test_an_admin_path_takes_an_admin_key_alone() -> None:
    ordinary, admin = ((b"authorization", b"Bearer " + key) for key in (b"first", b"admin"))
    for path in ("/admin", "/admin/", "/admin/adapters", "/admin/nowhere", *ADMIN_PATHS):
        assert await status_of(path) == 401
        assert await status_of(path, ordinary) == 403
        assert await status_of(path, admin) == 200
        assert await status_of(path, ordinary, admins=()) == 403
        assert await status_of(path, admins=()) == 401
    assert await status_of("/v1/models", admin) == 200
    assert await status_of("/v1/models", (b"authorization", b"Basic first")) == 401


def test_a_clients_request_id_writes_no_line_of_the_log() -> None:
    async def send(_message: Message) -> None: ...

    for theirs in (b"a\nb", b"a\rb", b"a b", b"\x1b[31m", b"a" * 129, b"a\n", "å".encode()):
        scope: Scope = {"type": "http", "headers": [(b"x-request-id", theirs)]}
        assert re.fullmatch("[0-9a-f]{32}", open_exchange(scope, send).request_id)


@pytest.mark.anyio
@pytest.mark.parametrize("headers", [[(b"a", b"")] * 101, [(b"a", b"x" * 32 * 1024)]], ids=["many", "large"])
async def test_more_headers_than_any_client_sends_are_refused(headers: list[tuple[bytes, bytes]]) -> None:
    async def app(_scope: Scope, _receive: Receive, _send: Send) -> None: ...

    async def receive() -> Message:
        raise AssertionError

    async def send(_message: Message) -> None: ...

    await HeaderLimits(app)({"type": "http", "headers": headers[:-1]}, receive, send)
    with pytest.raises(ApiError) as error:
        await HeaderLimits(app)({"type": "http", "headers": headers}, receive, send)
    assert error.value.reply.status == 431
