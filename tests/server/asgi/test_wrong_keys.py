"""Wrong keys are counted; nobody with a right one is locked out by them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from server.asgi.wrong_keys import BURST, BURST_IN_ALL, MOST, PER_SECOND, WrongKeys
from tests.server.administered import ADMIN, KEY, Place, administered
from tests.server.http_server import Serving

METRICS = "metrics-key"


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_an_address_has_a_burst_and_a_rate() -> None:
    clock = Clock()
    wrong = WrongKeys(clock)
    assert [wrong.record("a") for _ in range(BURST)] == [0] * BURST
    assert wrong.record("a") == 1 / PER_SECOND
    assert wrong.record("b") == 0
    clock.now += 1 / PER_SECOND + 0.01
    assert (wrong.record("a"), wrong.record("a") > 0) == (0, True)


def test_all_addresses_together_have_one_too_and_the_table_is_bounded() -> None:
    clock = Clock()
    wrong = WrongKeys(clock)
    answers = [wrong.record(f"address {number}") for number in range(3 * MOST)]
    assert answers[:BURST_IN_ALL] == [0] * BURST_IN_ALL
    assert all(answers[BURST_IN_ALL:])
    assert len(wrong._addresses) == MOST  # pyright: ignore[reportPrivateUsage]


@pytest.fixture(scope="module")
def serving(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Iterator[Serving]:
    place = Place.make(tmp_path_factory.mktemp("wrong"), tiny_base, make_adapter)
    settings = place.settings(api_keys=(KEY,), admin_keys=(ADMIN,), metrics_keys=(METRICS,))
    with administered(place, settings) as serving:
        yield serving


def ask(serving: Serving, path: str, key: str | None) -> httpx.Response:
    headers = {} if key is None else {"Authorization": f"Bearer {key}"}
    return httpx.get(serving.url + path, headers=headers)


@pytest.mark.parametrize(
    ("key", "metrics", "models", "admin"),
    [
        (None, 401, 401, 401),
        ("wrong", 401, 401, 401),
        (KEY, 403, 200, 403),
        (METRICS, 200, 401, 403),
        (ADMIN, 200, 200, 200),
    ],
)
def test_tenants_keys_do_not_open_the_metrics(
    serving: Serving, key: str | None, metrics: int, models: int, admin: int
) -> None:
    for path, status in (("/metrics", metrics), ("/v1/models", models), ("/admin/adapters", admin)):
        answer = ask(serving, path, key)
        assert answer.status_code == status, path
        if status == 403 and path == "/metrics":
            assert answer.json()["error"]["code"] == "metrics_key_needed"


def test_many_wrong_keys_are_429_and_a_right_one_still_passes(serving: Serving) -> None:
    for path in ("/v1/models", "/metrics", "/admin/adapters"):
        # A slow machine earns a key back every five seconds, so the number of guesses is not exact.
        guesses = (ask(serving, path, f"guess-{number}").status_code for number in range(10 * BURST))
        assert next(status for status in guesses if status != 401) == 429, path
    refused = ask(serving, "/v1/models", "guess")
    assert int(refused.headers["Retry-After"]) >= 1
    assert refused.json()["error"]["code"] == "too_many_wrong_keys"
    assert ask(serving, "/v1/models", KEY).status_code == 200
    assert ask(serving, "/metrics", METRICS).status_code == 200
    assert ask(serving, "/v1/models", None).status_code == 401
    assert ask(serving, "/live", "guess").status_code == 200
