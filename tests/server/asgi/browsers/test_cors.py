"""Pages of listed origins may ask and read; those of others learn nothing."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.administered import KEY, Place, administered
from tests.server.http_server import Serving

APP = "http://localhost:5173"
CHAT = "/v1/chat/completions"
BODY = {"messages": [{"role": "user", "content": "hi"}], "max_tokens": 1}
PREFLIGHT = {
    "Access-Control-Request-Method": "POST",
    "Access-Control-Request-Headers": "authorization,content-type,x-stainless-os",
}
AUTH = {"Authorization": f"Bearer {KEY}"}
ALLOW = "access-control-allow-origin"


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("cors"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def listed(place: Place) -> Iterator[Serving]:
    with administered(place, place.settings(api_keys=(KEY,), cors_origins=(APP,))) as serving:
        yield serving


@pytest.fixture(scope="module")
def anyone(place: Place) -> Iterator[Serving]:
    with administered(place, place.settings(api_keys=(KEY,), cors_origins=("*",))) as serving:
        yield serving


def vary(answer: httpx.Response) -> set[str]:
    return {name.strip() for name in answer.headers.get("vary", "").split(",") if name}


@pytest.mark.parametrize("path", [CHAT, "/v1/models", "/admin/adapters", "/nowhere"])
def test_a_preflight_needs_no_key(listed: Serving, path: str) -> None:
    site = {"Sec-Fetch-Site": "cross-site"}
    answer = httpx.options(listed.url + path, headers=PREFLIGHT | site | {"Origin": APP})
    assert (answer.status_code, answer.content) == (204, b"")
    assert answer.headers[ALLOW] == APP
    assert "POST" in answer.headers["access-control-allow-methods"]
    assert answer.headers["access-control-allow-headers"] == PREFLIGHT["Access-Control-Request-Headers"]
    assert {"Origin", "Access-Control-Request-Headers"} <= vary(answer)
    assert "access-control-allow-credentials" not in answer.headers


@pytest.mark.parametrize("origin", ["http://localhost:5174", "https://localhost:5173", "null", "http://evil"])
def test_another_origins_preflight_is_refused(listed: Serving, origin: str) -> None:
    answer = httpx.options(listed.url + CHAT, headers=PREFLIGHT | {"Origin": origin})
    assert answer.status_code == 403
    assert ALLOW not in answer.headers


def test_a_preflight_names_its_host_like_any_request(listed: Serving) -> None:
    headers = PREFLIGHT | {"Origin": APP, "Host": "evil.example"}
    assert httpx.options(listed.url + CHAT, headers=headers).status_code == 421


def test_only_preflights_go_without_a_key(listed: Serving) -> None:
    assert httpx.options(listed.url + CHAT, headers={"Origin": APP}).status_code == 401
    assert httpx.options(listed.url + CHAT, headers=PREFLIGHT).status_code == 401
    answer = httpx.post(listed.url + CHAT, headers=PREFLIGHT | {"Origin": APP}, json=BODY)
    assert answer.status_code == 401
    assert answer.headers[ALLOW] == APP


def test_a_listed_page_asks_and_reads(listed: Serving) -> None:
    headers = AUTH | {"Origin": APP, "Sec-Fetch-Site": "same-site"}
    answer = httpx.post(listed.url + CHAT, headers=headers, json=BODY, timeout=60)
    assert answer.status_code == 200
    assert answer.headers[ALLOW] == APP
    exposed = {name.strip().lower() for name in answer.headers["access-control-expose-headers"].split(",")}
    receipt = {name for name in answer.headers if name.startswith("x-oneseek-")}
    assert receipt
    assert receipt | {"x-request-id", "retry-after"} <= exposed


def test_errors_are_readable_too(listed: Serving) -> None:
    answer = httpx.post(listed.url + CHAT, headers=AUTH | {"Origin": APP}, json={})
    assert (answer.status_code, answer.headers[ALLOW]) == (400, APP)


def test_a_cache_is_told_that_answers_differ(listed: Serving) -> None:
    for headers in (AUTH, AUTH | {"Origin": APP}):
        assert "Origin" in vary(httpx.get(listed.url + "/v1/models", headers=headers))


@pytest.mark.parametrize(
    "headers",
    [
        {"Origin": "http://evil"},
        {"Origin": "null"},
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
    ],
)
def test_pages_that_are_not_listed_are_refused(listed: Serving, headers: dict[str, str]) -> None:
    answer = httpx.get(listed.url + "/v1/models", headers=AUTH | headers)
    assert answer.status_code == 403
    assert ALLOW not in answer.headers


def test_one_listed_origin_of_two_is_not_enough(listed: Serving) -> None:
    headers = [("Origin", APP), ("Origin", "http://evil"), *AUTH.items()]
    assert httpx.get(listed.url + "/v1/models", headers=headers).status_code == 403


def test_a_star_names_no_origin_and_asks_for_no_credentials(anyone: Serving) -> None:
    for origin in ("https://somewhere.example", "null"):
        headers = {"Origin": origin, "Sec-Fetch-Site": "cross-site"}
        preflight = httpx.options(anyone.url + CHAT, headers=PREFLIGHT | headers)
        answer = httpx.post(anyone.url + CHAT, headers=AUTH | headers, json=BODY, timeout=60)
        assert (preflight.status_code, answer.status_code) == (204, 200)
        for one in (preflight, answer):
            assert one.headers[ALLOW] == "*"
            assert "access-control-allow-credentials" not in one.headers
    assert httpx.get(anyone.url + "/v1/models", headers={"Sec-Fetch-Site": "cross-site"}).status_code == 403


def test_odd_header_names_are_not_repeated(anyone: Serving) -> None:
    headers = PREFLIGHT | {"Origin": APP, "Access-Control-Request-Headers": "a;b"}
    answer = httpx.options(anyone.url + CHAT, headers=headers)
    assert answer.status_code == 204
    assert "access-control-allow-headers" not in answer.headers


def test_without_the_setting_there_is_none(serving: Serving) -> None:
    answer = httpx.options(serving.url + CHAT, headers=PREFLIGHT | {"Origin": serving.url})
    assert answer.status_code == 405
    assert ALLOW not in answer.headers
    assert "vary" not in answer.headers
