"""A slash at the end of a path changes nothing, and every GET has its HEAD."""

from __future__ import annotations

import httpx
import pytest

from tests.server.http_server import Serving

GETS = (
    "/v1/models",
    "/v1/models/tiny",
    "/v1/adapters",
    "/v1/adapters/sv",
    "/health",
    "/live",
    "/ready",
    "/ping",
    "/version",
    "/metrics",
    "/metrics/recent",
    "/openapi.json",
    "/docs",
)


@pytest.mark.parametrize("path", GETS)
def test_a_slash_at_the_end_is_as_none(client: httpx.Client, path: str) -> None:
    """No redirect: it would lose a POST's body, and be built from the client's Host."""
    assert client.get(path + "/").status_code == client.get(path).status_code == 200


def test_a_post_keeps_its_body(client: httpx.Client) -> None:
    body = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
    assert client.post("/v1/chat/completions/", json=body).status_code == 200
    assert client.post("/v1/chat/completions//", json=body).status_code == 404


@pytest.mark.parametrize("path", GETS)
def test_head_is_get_without_a_body(client: httpx.Client, path: str) -> None:
    head, get = client.head(path), client.get(path)
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-type"] == get.headers["content-type"]


def test_head_of_what_is_not_there(client: httpx.Client) -> None:
    assert client.head("/nowhere").status_code == 404
    assert client.head("/v1/chat/completions").status_code == 405


def test_ping_is_readiness(serving: Serving) -> None:
    assert serving.http.get("/ping").json() == serving.http.get("/ready").json() == {"status": "ready"}
    assert serving.http.post("/ping").status_code == 200
    assert serving.http.get("/ping", headers={"Host": "10.1.2.3:8080"}).status_code == 200
