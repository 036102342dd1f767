"""Adapters by URL over HTTP: beneath the operator's prefixes alone, and nothing is left of a refused one."""

from __future__ import annotations

import json
import logging
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from adapters.ledger import Ledger
from adapters.lora.digest import adapter_digest
from adapters.remote import stores
from tests.adapters.remote.hosts import WebHost, redirect, silent, trickle, web_host
from tests.server.administered import ADMIN, Place, add, administered, ask, change, done, load, unload, until
from tests.server.http_server import Serving
from tests.server.live.adapters.test_malformed import tree

KEPT = ("registry", "ledger", "fetch")


@pytest.fixture(autouse=True)
def no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")


@pytest.fixture(scope="module")
def web() -> Iterator[WebHost]:
    with web_host() as host:
        yield host


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("urls"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place, web: WebHost) -> Iterator[Serving]:
    settings = place.settings(adapter_urls=(f"{web.url}/ours",), fetch_timeout=60, max_fetch_size=50_000_000)
    with administered(place, settings) as serving:
        yield serving


def kept(place: Place) -> dict[str, str]:
    return tree(*(place.home / name for name in KEPT))


def refusal(answer: httpx.Response, status: int, code: str) -> str:
    found = answer.json()["error"]
    assert (answer.status_code, found["code"]) == (status, code), found
    return found["message"]


def test_a_url_beneath_a_prefix_becomes_a_version(serving: Serving, place: Place, web: WebHost) -> None:
    url, digest = web.put("ours/far-v1.0", place.more(1)), adapter_digest(place.more(1))
    other = "sha256:" + "0" * 64
    before = kept(place)
    refusal(add(serving.http, url, digest=other), 400, "digest_mismatch")
    refusal(add(serving.http, url, digest="abc"), 400, "invalid_value")
    refusal(add(serving.http, place.more(1), digest=digest), 400, "invalid_value")
    assert kept(place) == before
    made = done(add(serving.http, url, digest=digest))
    assert (made["name"], made["digest"], made["new"], made["active"]) == ("far@v1.0", digest, True, True)
    assert ask(serving.http, "far").headers["X-OneSeek-Adapter-Digest"] == digest
    [*_, entry] = Ledger.open(place.home / "ledger").entries()
    assert entry.record.details["url"] == url
    assert not (place.home / "fetch").exists()


OUTSIDE = [
    "{web}/theirs/a",
    "{web}/ours/../theirs/a",
    "{web}/ours/%2e%2e/theirs/a",
    "{web}/ours/%252e%252e/theirs/a",
    "{web}/ours//a",
    "{web}/oursmore/a",
    "{web}/ours/a?next=http://example.com",
    "{web}/ours/a#b",
    "http://user:hunter2@{host}/ours/a",
    "http://localhost:{port}/ours/a",
    "http://127.1:{port}/ours/a",
    "http://169.254.169.254/latest",
    "https://127.0.0.1:{port}/ours/a",
    "s3://bucket/a",
    "file:///etc/passwd",
    "memory://a",
]


@pytest.mark.parametrize("form", OUTSIDE)
def test_nothing_else_is_asked_for(serving: Serving, place: Place, web: WebHost, form: str) -> None:
    url = form.format(web=web.url, host=f"127.0.0.1:{web.port}", port=web.port)
    before, asked = kept(place), len(web.asked)
    for answer in (add(serving.http, url, alias="x"), load(serving.http, "x", url)):
        message = answer.json()["error"]["message"]
        assert answer.status_code == 400, message
        assert "hunter2" not in message
        assert str(place.root) not in message
    assert len(web.asked) == asked
    assert kept(place) == before


def test_without_prefixes_nothing_is_fetched(place: Place, web: WebHost, tmp_path: Path) -> None:
    settings = place.settings(home=tmp_path / "home")
    with administered(place, settings) as serving:
        asked = len(web.asked)
        message = refusal(add(serving.http, f"{web.url}/ours/a"), 400, "path_refused")
        assert "adapter_urls" in message
        assert load(serving.http, "x", f"{web.url}/ours/a").status_code == 400
        assert len(web.asked) == asked


def test_only_an_admin_has_anything_fetched(serving: Serving, web: WebHost) -> None:
    asked = len(web.asked)
    with httpx.Client(base_url=serving.url) as client:
        assert add(client, f"{web.url}/ours/a").status_code in (401, 403)
        assert load(client, "x", f"{web.url}/ours/a").status_code in (401, 403)
    assert len(web.asked) == asked


def test_what_fails_leaves_nothing(
    serving: Serving, place: Place, web: WebHost, monkeypatch: pytest.MonkeyPatch
) -> None:
    web.put("ours/odd", place.more(1))
    web.contents["/ours/odd/adapter_config.json"] = json.dumps(
        {"peft_type": "LORA", "use_dora": True}
    ).encode()
    web.contents["/ours/old/adapter_model.bin"] = b"pickle"
    web.answers["/ours/moved"] = redirect(f"{web.url}/theirs")
    monkeypatch.setattr(stores, "READ_SECONDS", 0.2)
    ended = threading.Event()
    web.answers["/ours/slow"] = silent(ended)
    before = kept(place)
    for name, status, code in (
        ("none", 404, "path_not_found"),
        ("odd", 400, "adapter_rejected"),
        ("old", 400, "adapter_rejected"),
        ("moved", 502, "url_unreachable"),
        ("slow", 504, "url_timeout"),
    ):
        message = refusal(add(serving.http, f"{web.url}/ours/{name}", alias="x"), status, code)
        assert str(place.home) not in message
    ended.set()
    assert kept(place) == before
    assert not [path for path in web.asked if path.startswith("/theirs")]


def test_a_client_that_goes_ends_its_fetch(serving: Serving, place: Place, web: WebHost) -> None:
    ended = threading.Event()
    web.answers["/ours/left"] = trickle(0.02, ended)
    before = kept(place)
    body = json.dumps({"path": f"{web.url}/ours/left", "alias": "left"})
    with socket.create_connection(("127.0.0.1", httpx.URL(serving.url).port or 0)) as client:
        head = f"POST /admin/adapters HTTP/1.1\r\nHost: 127.0.0.1\r\nAuthorization: Bearer {ADMIN}\r\n"
        head += f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n{body}"
        client.sendall(head.encode())
        until(lambda: any(path.startswith("/ours/left") for path in web.asked))
    assert ended.wait(20), "long before its limit of a minute"
    until(lambda: not (place.home / "fetch").exists())
    assert kept(place) == before
    done(add(serving.http, web.put("ours/after-v1", place.more(2))))


def test_loading_a_url_serves_a_version(serving: Serving, place: Place, web: WebHost) -> None:
    first, second = (web.put(f"ours/{name}", place.more(number)) for name, number in (("one", 3), ("two", 4)))
    assert load(serving.http, "trial", first).text == "Success: LoRA adapter 'trial' added successfully."
    assert ask(serving.http, "trial").headers["X-OneSeek-Adapter"] == "trial@v1.0"
    assert load(serving.http, "trial", second).json()["error"]["param"] == "lora_name"
    assert load(serving.http, "trial", second, load_inplace=True).status_code == 200
    assert ask(serving.http, "trial").headers["X-OneSeek-Adapter"] == "trial@v1.1"
    assert unload(serving.http, "trial").status_code == 400
    done(change(serving.http, "trial@v1.0", "retire"))
    refused = load(serving.http, "trial@v9", f"{web.url}/ours/none")
    assert refused.json()["error"]["param"] == "lora_path"


def test_the_audit_repeats_no_secret(
    serving: Serving, web: WebHost, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "oneseek.admin")
    add(serving.http, f"http://user:hunter2@127.0.0.1:{web.port}/ours/a?sig=hunter2")
    assert "oneseek.admin" in {record.name for record in caplog.records}
    assert "hunter2" not in caplog.text
