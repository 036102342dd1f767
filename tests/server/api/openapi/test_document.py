"""The OpenAPI document says what the server does: every route, every field, every status."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.applications import Starlette
from starlette.routing import Route

from adapters.lora.manifest import Adapter
from server.api.fields.generation import ChatFields, known
from server.api.openapi.document import make_document
from server.config.settings import Settings
from tests.server.administered import KEY, Place, administered
from tests.server.http_server import Serving, make_app

TABLE = json.loads(make_document(changeable=True))
METHODS = {"GET", "POST", "DELETE"}


@pytest.fixture(scope="module")
def keyed(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Iterator[Serving]:
    place = Place.make(tmp_path_factory.mktemp("documents"), tiny_base, make_adapter)
    with administered(place, place.settings(api_keys=(KEY,))) as serving:
        yield serving


def routes(app: Any) -> set[tuple[str, str]]:
    while not isinstance(app, Starlette):
        app = app.app
    found = [route for route in app.routes if isinstance(route, Route)]
    return {
        (method, route.path.replace(":path", ""))
        for route in found
        for method in (route.methods or set()) & METHODS
    }


def listed(document: dict[str, Any]) -> set[tuple[str, str]]:
    return {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}


def test_every_route_is_listed_and_nothing_else(
    tiny_base: Path, voices: dict[str, Adapter], graphs: Path, keyed: Serving
) -> None:
    plain = make_app(tiny_base, voices, graphs, Settings(port=0)).app
    assert routes(plain) == listed(json.loads(make_document(changeable=False)))
    assert routes(keyed.server.config.app) == listed(TABLE)


def test_bodies_are_the_fields() -> None:
    chat = TABLE["components"]["schemas"]["ChatFields"]
    assert known(ChatFields) <= set(chat["properties"])
    assert chat["required"] == ["messages"]
    assert chat["properties"]["top_p"]["anyOf"][0]["maximum"] == 1.0
    assert "user" in chat["properties"]  # accepted and not used
    assert "functions" not in chat["properties"]  # refused


def test_every_reference_leads_somewhere() -> None:
    text = json.dumps(TABLE)
    for part in text.split('"$ref": "#/')[1:]:
        target: Any = TABLE
        for step in part.split('"')[0].split("/"):
            target = target[step]
    assert "\\Z" not in text


def test_the_same_bytes_each_time() -> None:
    assert make_document(changeable=True) == make_document(changeable=True)


@pytest.mark.parametrize("path", ["/openapi.json", "/docs"])
def test_it_is_open_and_cached(keyed: Serving, path: str) -> None:
    first = httpx.get(keyed.url + path)
    assert first.status_code == 200
    tag = {"If-None-Match": first.headers["etag"]}
    again = httpx.get(keyed.url + path, headers=tag)
    assert (again.status_code, again.content) == (304, b"")
    assert httpx.get(keyed.url + path, headers={"If-None-Match": '"other"'}).status_code == 200
    # Open to all, but not under another name or to another site's page.
    assert httpx.get(keyed.url + path, headers={"Host": "evil.example"}).status_code == 421
    assert httpx.get(keyed.url + path, headers={"Origin": "http://evil.example"}).status_code == 403


def test_it_says_nothing_of_this_server(keyed: Serving) -> None:
    for path in ("/openapi.json", "/docs"):
        text = httpx.get(keyed.url + path).text
        assert KEY not in text
        assert not any(adapter.alias in text for adapter in keyed.served.adapters())
