"""`/v1/adapters`: every alias and version, how canaries do, and lineage for whoever may ask the adapter."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import httpx
import pytest

from tests.server.administered import KEY, Place, administered, ask, change, done, two_versions
from tests.server.http_server import Serving
from tests.server.two_bases import EN, NORTH, SOUTH, SV, TwoBases, two_bases_served


@pytest.fixture(scope="module")
def place(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    return Place.make(tmp_path_factory.mktemp("adapters"), tiny_base, make_adapter)


@pytest.fixture(scope="module")
def serving(place: Place) -> Iterator[Serving]:
    """With zero@v1.0, which is active, and zero@v1.1."""
    with administered(place, place.settings(api_keys=(KEY,))) as serving:
        two_versions(serving.http, place)
        yield serving


@pytest.fixture
def client(serving: Serving) -> Iterator[httpx.Client]:
    """Presents an ordinary key."""
    headers = {"Authorization": f"Bearer {KEY}"}
    with httpx.Client(base_url=serving.url, headers=headers, timeout=60) as client:
        yield client


def test_aliases_are_listed_with_their_versions(client: httpx.Client) -> None:
    listed = client.get("/v1/adapters").json()
    (zero,) = [one for one in listed["data"] if one["alias"] == "zero"]
    assert (zero["active"], zero["language"], zero["trial_since"]) == ("v1.0", "sv", None)
    assert [(one["version"], one["active"]) for one in zero["versions"]] == [("v1.0", True), ("v1.1", False)]
    assert listed["changeable"] is True
    assert [base["blends"] for base in listed["bases"]] == [True]


def test_a_canary_has_its_figures_beside_the_active_versions(serving: Serving, client: httpx.Client) -> None:
    shares = {"shares": {"v1.0": 50, "v1.1": 50}}
    assert change(serving.http, "zero", "canary", json=shares).status_code == 200
    for number in range(12):
        assert ask(client, "zero", f"Fråga {number}?").status_code == 200
    (zero,) = [one for one in client.get("/v1/adapters").json()["data"] if one["alias"] == "zero"]
    assert zero["trial_since"] is not None
    assert [one["share"] for one in zero["versions"]] == [50, 50]
    figures = [one["figures"] for one in zero["versions"]]
    assert sum(one["answers"] for one in figures) == 12
    assert all(one["errors"] == 0 and one["first_token_ms"] > 0 for one in figures)
    assert change(serving.http, "zero", "settle").status_code == 200
    (zero,) = [one for one in client.get("/v1/adapters").json()["data"] if one["alias"] == "zero"]
    assert [one["figures"] for one in zero["versions"]] == [None, None]


def test_a_version_has_its_lineage(serving: Serving, client: httpx.Client) -> None:
    for name in ("zero", "sv", "zero@v1.0", "ZERO@V1.0"):
        one = client.get(f"/v1/adapters/{name}").json()
        assert (one["name"], one["ledger"]) == ("zero@v1.0", "signed")
    assert [entry["action"] for entry in one["lineage"]["made"]] == ["add"]
    assert "base" in {source["role"] for source in one["lineage"]["sources"]}
    # It follows the ledger.
    done(change(serving.http, "zero@v1.1", "promote"))
    done(change(serving.http, "zero", "rollback"))
    made = client.get("/v1/adapters/zero@v1.1").json()["lineage"]["made"]
    assert [entry["action"] for entry in made] == ["add", "promote"]


def test_it_names_no_folder(client: httpx.Client, place: Place) -> None:
    for path in ("/v1/adapters", "/v1/adapters/zero"):
        assert str(place.root.parent) not in client.get(path).text


def test_a_damaged_ledger_is_said(client: httpx.Client, place: Place) -> None:
    file = place.home / "ledger" / "ledger.jsonl"
    whole = file.read_bytes()
    try:
        file.write_bytes(whole.replace(b'"action":"add"', b'"action":"bad"', 1))
        assert client.get("/v1/adapters/zero").json()["ledger"] == "damaged"
    finally:
        file.write_bytes(whole)


@pytest.mark.parametrize("name", ["nobody", "tiny", "base", "zero@v9", "nowhere:zero", "auto"])
def test_what_is_no_adapter_is_not_found(client: httpx.Client, name: str) -> None:
    answer = client.get(f"/v1/adapters/{name}")
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "name")


def test_it_needs_a_key(serving: Serving) -> None:
    assert httpx.get(serving.url + "/v1/adapters").status_code == 401
    assert httpx.get(serving.url + "/v1/adapters/zero").status_code == 401


def test_of_several_bases_each_alias_is_on_its_own(tmp_path: Path) -> None:
    two = TwoBases.make(tmp_path)
    with two_bases_served(two.settings(tmp_path / "home"), two.root) as serving:
        client = serving.serving.http
        listed = client.get("/v1/adapters").json()
        assert [base["name"] for base in listed["bases"]] == [SOUTH, NORTH]
        # Their languages are in the settings alone.
        found = {(one["base_name"], one["alias"], one["language"]) for one in listed["data"]}
        assert found == {(SOUTH, EN, "en"), (NORTH, SV, "sv")}
        for name in (SV, f"{NORTH}:{SV}", f"{NORTH}:{SV}@v1"):
            assert client.get(f"/v1/adapters/{name}").json()["base_name"] == NORTH
        assert client.get(f"/v1/adapters/{SOUTH}:{SV}").status_code == 404
