"""Keys: what each of them opens, and what is closed without one."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.lora.manifest import Adapter
from server.config.settings import Settings
from tests.server.http_server import Serving, make_app, served

CHAT = "/v1/chat/completions"
ASK: dict[str, Any] = {
    "messages": [{"role": "user", "content": "Who are you?"}],
    "max_tokens": 8,
    "temperature": 0,
}


@pytest.fixture(scope="module")
def locked(tiny_base: Path, voices: dict[str, Adapter], graphs: Path) -> Iterator[Serving]:
    settings = Settings(port=0, max_num_seqs=4, log_level="warning", api_keys=("first-key", "second-key"))
    with served(make_app(tiny_base, voices, graphs, settings), settings, voices) as serving:
        yield serving


def test_keys_open_every_path(locked: Serving) -> None:
    for key in ("first-key", "second-key"):
        with httpx.Client(base_url=locked.url, headers={"Authorization": f"Bearer {key}"}) as client:
            assert client.post(CHAT, json=ASK).status_code == 200
            assert client.get("/metrics").status_code == 403
            assert "queue" in client.get("/health").json()


@pytest.mark.parametrize(
    "authorization",
    [
        None,
        "",
        "Bearer",
        "Bearer wrong",
        "Bearer first-key2",
        "first-key",
        "Basic first-key",
        "Bearer å",
    ],
)
def test_without_a_key_all_but_the_probes_is_closed(locked: Serving, authorization: str | None) -> None:
    headers = {} if authorization is None else {b"Authorization": authorization.encode()}
    with httpx.Client(base_url=locked.url, headers=headers) as client:
        for path in (
            "/v1/models",
            "/metrics",
            "/version",
            "/nowhere",
            "//live",
            "/live//",
            "/LIVE",
            "/live/../metrics",
        ):
            # As it is: httpx would take //live for a host.
            reply = client.get(httpx.URL(locked.url).copy_with(raw_path=path.encode()))
            assert (reply.status_code, reply.json()["error"]["code"]) == (401, "invalid_api_key")
            assert reply.headers["www-authenticate"] == "Bearer"
        assert client.post(CHAT, json=ASK).status_code == 401
        assert client.get("/live").status_code == 200
        assert client.get("/ready").status_code == 200
        assert client.get("/health").json() == {"status": "ok"}


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Host": "x/live?"}, 400),
        ({"Host": "localhost/health#"}, 400),
        ({"X-Forwarded-Prefix": "/live"}, 401),
        ({"X-Original-URL": "/live"}, 401),
    ],
)
def test_no_header_moves_a_closed_path_to_an_open_one(
    locked: Serving, headers: dict[str, str], status: int
) -> None:
    assert httpx.get(f"{locked.url}/v1/models", headers=headers).status_code == status


def test_one_keys_prompts_do_not_show_in_anothers_cache(locked: Serving) -> None:
    text = "Jag svarar på två språk, och jag är en liten modell för prov. " * 2
    body = ASK | {"messages": [{"role": "user", "content": text}]}

    def cached(key: str) -> int:
        reply = httpx.post(locked.url + CHAT, json=body, headers={"Authorization": f"Bearer {key}"})
        return reply.json()["usage"]["prompt_tokens_details"]["cached_tokens"]

    assert cached("first-key") == 0
    assert cached("first-key") > 0
    assert cached("second-key") == 0
