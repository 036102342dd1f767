"""Canaries and shadows set over HTTP: requests are divided so when it is answered, and settled again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.registry.registry import Registry
from tests.server.administered import (
    Place,
    add,
    administered,
    ask,
    asking,
    change,
    done,
    load,
    two_versions,
    until,
)
from tests.server.http_server import Serving


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("dividing"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place, engine_kind: str) -> Iterator[Serving]:
    """A server with zero@v1.0, which is active, and zero@v1.1 in its registry; extra is loaded."""
    with administered(place, place.settings(), engine=engine_kind) as serving:
        two_versions(serving.http, place)
        done(add(serving.http, place.more(3), alias="alone", version="v1", language="en"))
        assert load(serving.http, "extra", place.more(4)).status_code == 200
        yield serving


@pytest.fixture(autouse=True)
def settled(serving: Serving) -> Iterator[None]:
    yield
    done(change(serving.http, "zero", "settle"))


def rollout(client: httpx.Client) -> dict[str, Any]:
    answer = client.get("/admin/adapters/zero/rollout")
    assert answer.status_code == 200
    return answer.json()


def answered(client: httpx.Client, conversations: int = 40) -> list[str]:
    """Who answers as many conversations."""
    texts = [f"Berätta något om nummer {number}, tack." for number in range(conversations)]
    return [ask(client, "zero", text, max_tokens=1).headers["X-OneSeek-Adapter"] for text in texts]


def test_a_canary_gets_its_share_from_the_answer_on(serving: Serving, place: Place) -> None:
    client = serving.http
    assert set(answered(client, 5)) == {"zero@v1.0"}
    set_ = done(change(client, "zero", "canary", json={"shares": {"v1.0": 50, "v1.1": 50}}))
    assert (set_["active"], set_["shares"], set_["shadow"]) == ("v1.0", {"v1.0": 50.0, "v1.1": 50.0}, {})
    first = answered(client)
    assert 8 <= first.count("zero@v1.1") <= 32
    assert answered(client) == first, "a conversation stays with its version"
    told = rollout(client)
    assert told["shares"] == told["wanted"]["shares"] == {"v1.0": 50.0, "v1.1": 50.0}
    assert [trial["state"] for trial in told["trials"] if trial["kind"] == "canary"] == ["running"]
    assert sum(told["trials"][0]["answers"].values()) == 80
    rows = {row["name"]: row for row in client.get("/admin/adapters").json()["data"]}
    assert [rows[name]["share"] for name in ("zero@v1.0", "zero@v1.1", "alone@v1")] == [50.0, 50.0, None]
    done(change(client, "zero", "settle", json={"reason": "seen enough"}))
    assert set(answered(client, 10)) == {"zero@v1.0"}
    assert rollout(client)["shares"] == {}
    state = Registry(place.home).listing().pointers.state("zero")
    assert (state.split, state.shadow) == (None, None)


def test_a_shadow_answers_unseen(serving: Serving) -> None:
    client = serving.http
    set_ = done(change(client, "zero", "shadow", json={"version": "v1.1", "share": 100}))
    assert (set_["shares"], set_["shadow"]) == ({}, {"v1.1": 100.0})
    assert set(answered(client, 6)) == {"zero@v1.0"}
    until(lambda: rollout(client)["trials"][0]["answers"].get("v1.1", 0) >= 1)
    rows = {row["name"]: row["shadow"] for row in client.get("/admin/adapters").json()["data"]}
    assert (rows["zero@v1.0"], rows["zero@v1.1"]) == (None, 100.0)


def test_dividing_drops_no_request(serving: Serving) -> None:
    with asking(serving, "zero") as answers:
        for share in (10, 90, 50):
            shares = {"v1.0": 100 - share, "v1.1": share}
            done(change(serving.http, "zero", "canary", json={"shares": shares}))
            done(change(serving.http, "zero", "settle"))
        done(change(serving.http, "zero", "shadow", json={"version": "v1.1", "share": 50}))
        done(change(serving.http, "zero@v1.1", "promote"))
        done(change(serving.http, "zero", "rollback"))
    assert answers.statuses == {200}
    assert {name for name, _ in answers.pairs} <= {"zero@v1.0", "zero@v1.1"}


@pytest.mark.parametrize(
    ("name", "verb", "body", "status", "param"),
    [
        ("zero", "canary", {}, 400, "shares"),
        ("zero", "canary", {"shares": {}}, 400, "shares"),
        ("zero", "canary", {"shares": [90, 10]}, 400, "shares"),
        ("zero", "canary", {"shares": {"v1.0": 90, "v1.1": 11}}, 400, "shares"),
        ("zero", "canary", {"shares": {"v1.1": 100}}, 400, "shares"),
        ("zero", "canary", {"shares": {"v1.0": 100, "v1.1": -1}}, 400, "shares"),
        ("zero", "canary", {"shares": {"v1.0": "90", "v1.1": 10}}, 400, "shares"),
        ("zero", "canary", {"shares": {"v1.0": 90, "v9": 10}}, 404, "name"),
        ("zero", "canary", {"shares": {"v1.0": 90, "v1.1": 10}, "share": 1}, 400, "share"),
        ("zero@v1.0", "canary", {"shares": {"v1.0": 90, "v1.1": 10}}, 400, "name"),
        ("nobody", "canary", {"shares": {"v1.0": 90, "v1.1": 10}}, 404, "name"),
        ("extra", "canary", {"shares": {"v1.0": 90, "v1.1": 10}}, 409, "name"),
        ("zero", "shadow", {"version": "v1.1"}, 400, "share"),
        ("zero", "shadow", {"version": "v1.1", "share": 0}, 400, "share"),
        ("zero", "shadow", {"version": "v1.1", "share": 101}, 400, "share"),
        ("zero", "shadow", {"version": "v1.0", "share": 5}, 409, "name"),
        ("zero", "shadow", {"version": "v9", "share": 5}, 404, "name"),
        ("zero", "settle", {"why": "x"}, 400, "why"),
        ("nobody", "settle", {}, 404, "name"),
    ],
)
def test_what_cannot_be_divided_is_said_and_changes_nothing(
    serving: Serving, place: Place, name: str, verb: str, body: dict[str, Any], status: int, param: str
) -> None:
    before = Registry(place.home).fingerprint(), serving.served.snapshot
    answer = change(serving.http, name, verb, json=body)
    assert answer.status_code == status, answer.text
    assert answer.json()["error"]["param"].partition("[")[0].partition(".")[0] == param
    assert (Registry(place.home).fingerprint(), serving.served.snapshot) == before


def test_a_version_with_a_share_is_not_retired(serving: Serving) -> None:
    done(change(serving.http, "zero", "canary", json={"shares": {"v1.0": 90, "v1.1": 10}}))
    refused = change(serving.http, "zero@v1.1", "retire")
    assert refused.status_code == 409
    assert "settle" in refused.json()["error"]["message"]
