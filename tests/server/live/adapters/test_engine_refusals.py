"""Adapters that only the engine refuses: no name for what was never accepted, 503 for what was."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from adapters.lora.manifest import read_manifest
from adapters.registry.registry import Registry
from server.config.settings import RoutingOptions
from tests.server.administered import ENGLISH, SWEDISH, Place, add, administered, ask, change, done, until
from tests.server.engines.making import ENGINES
from tests.server.http_server import Serving
from tests.server.rolling import Bad

REFUSING = "refusing"


@pytest.fixture
def refused() -> set[str]:
    """Digests that the engine refuses."""
    return set()


@pytest.fixture
def place(
    tmp_path: Path,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
    refused: set[str],
    monkeypatch: pytest.MonkeyPatch,
) -> Place:
    def make(*args: Any) -> Bad:
        return Bad(ENGINES["embedded"](*args), refused)

    monkeypatch.setitem(ENGINES, REFUSING, make)
    return Place.make(tmp_path, tiny_base, make_adapter)


def put(place: Place, number: int, folder: Path) -> str:
    """One of the adapters that wait, in `folder`; its digest."""
    shutil.copytree(place.more(number), folder)
    return read_manifest(folder, alias="any", version="v1").digest


def listed(client: httpx.Client) -> str:
    """Every list of adapters that there is; the operator's holds what the registry has but is not served."""
    rows = client.get("/admin/adapters").json()["data"]
    kept = [row["name"] for row in rows if row["served"] or row["from"] != "registry"]
    return "\n".join([*kept, client.get("/v1/models").text, client.get("/health").text])


def unload(serving: Serving, digest: str) -> None:
    """Have the engine drop an adapter."""
    asyncio.run_coroutine_threadsafe(serving.engine.unload(digest), serving.loop).result(30)


def refusals(caplog: pytest.LogCaptureFixture, name: str) -> int:
    """Lines of the log that name it."""
    return sum(name in record.getMessage() for record in caplog.records)


def test_what_is_refused_at_the_start_has_no_name(
    place: Place, refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    refused.add(put(place, 1, place.lora_adapters / "bad-v1-SV"))
    put(place, 2, place.lora_adapters / "good-v1-EN")
    with administered(place, place.settings(), engine=REFUSING) as serving:
        client = serving.http
        assert "bad" not in listed(client)
        for name in ("bad-sv", "bad-sv@v1", "sv"):
            answer = ask(client, name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found"), name
        assert ask(client, "oneseek", SWEDISH).headers["X-OneSeek-Adapter"] == "base"
        assert ask(client, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "good-en@v1"
        assert client.get("/ready").status_code == 200
    assert refusals(caplog, "bad-sv@v1") == 1


def test_another_version_has_the_alias_then(place: Place, refused: set[str]) -> None:
    put(place, 1, place.lora_adapters / "zero-v1")
    refused.add(put(place, 2, place.lora_adapters / "zero-v2"))
    refused.add(put(place, 3, place.lora_adapters / "zero-v3"))
    with administered(place, place.settings(), engine=REFUSING) as serving:
        assert ask(serving.http, "zero").headers["X-OneSeek-Adapter"] == "zero@v1"
        assert [ask(serving.http, f"zero@{version}").status_code for version in ("v2", "v3")] == [404, 404]


def test_what_comes_later_and_is_refused_gets_no_name(
    place: Place, refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    registry = place.home / "registry"
    with administered(place, place.settings(follow_registry=0.05), engine=REFUSING) as serving:
        refused.add(read_manifest(place.more(1), alias="any", version="v1").digest)
        put(place, 1, registry / "late" / "v1")
        for number in (2, 3):  # the second look meets it again
            put(place, number, registry / "fine" / f"v{number}")
            until(lambda: ask(serving.http, f"fine@v{number}").status_code == 200)  # noqa: B023
        assert "late" not in listed(serving.http)
        assert ask(serving.http, "late").status_code == 404
    assert refusals(caplog, "late@v1") == 1


def test_what_is_refused_at_its_first_request_has_no_name_from_then_on(
    place: Place, refused: set[str], caplog: pytest.LogCaptureFixture
) -> None:
    put(place, 1, place.lora_adapters / "aa-v1-EN")
    refused.add(put(place, 2, place.lora_adapters / "cold-v1"))
    refused.add(put(place, 3, place.lora_adapters / "zz-v1-SV"))
    with administered(place, place.settings(), engine=REFUSING, slots=1) as serving:
        client = serving.http
        assert "cold" in listed(client)
        for _ in range(2):
            answer = ask(client, "cold")
            assert (answer.status_code, answer.json()["error"]["code"]) == (404, "model_not_found")
        assert "cold" not in listed(client)
        assert "zz-sv" in listed(client)
        for _ in range(2):  # nobody named it, so the question is answered
            answer = ask(client, "oneseek", SWEDISH)
            assert (answer.status_code, answer.headers["X-OneSeek-Adapter"]) == (200, "base")
        assert "zz-sv" not in listed(client)
        assert ask(client, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "aa-en@v1"
    assert [refusals(caplog, name) for name in ("cold@v1", "zz-sv@v1")] == [1, 1]


def test_one_of_several_voices_that_is_refused_is_unknown(place: Place, refused: set[str]) -> None:
    put(place, 1, place.lora_adapters / "aa-v1-EN")
    refused.add(put(place, 2, place.lora_adapters / "cold-v1"))
    with administered(place, place.settings(), engine=REFUSING, slots=1) as serving:
        asked = {"question": "Hej", "models": ["base", "cold"], "max_tokens": 4}
        voices = serving.http.post("/api/oqt/multi-model-query", json=asked).json()["voices"]
        assert [voice["status"] for voice in voices] == ["answered", "failed"]
        assert voices[1]["error"]["code"] == "adapter_not_found"
        assert serving.http.post("/api/oqt/multi-model-query", json=asked).status_code == 404


def test_what_was_accepted_is_503(place: Place, refused: set[str]) -> None:
    held = put(place, 1, place.lora_adapters / "held-v1")
    with administered(place, place.settings(), engine=REFUSING) as serving:
        client = serving.http
        taken = done(add(client, place.more(2), alias="taken", version="v1"))["digest"]
        assert [ask(client, name).status_code for name in ("held", "taken")] == [200, 200]
        refused |= {held, taken}
        for digest in refused:
            unload(serving, digest)
        for name in ("held", "taken"):
            answer = ask(client, name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "adapter_unavailable")
            assert name in listed(client)
    with administered(place, place.settings(), engine=REFUSING) as serving:
        statuses = [ask(serving.http, name).status_code for name in ("held", "taken")]
        assert statuses == [404, 503], "the registry remembers what it took in"


def test_what_the_engine_refuses_is_not_promoted(place: Place, refused: set[str]) -> None:
    with administered(place, place.settings(), engine=REFUSING) as serving:
        client = serving.http
        done(add(client, place.more(1), alias="zero", version="v1"))
        later = done(add(client, place.more(2), alias="zero", version="v2"))["digest"]
        refused.add(later)
        unload(serving, later)
        answer = change(client, "zero@v2", "promote")
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "adapter_refused")
        assert Registry(place.home).listing().pointers.active("zero") == "v1"
        assert ask(client, "zero").headers["X-OneSeek-Adapter"] == "zero@v1"


def test_what_the_settings_send_traffic_to_is_503(place: Place, refused: set[str]) -> None:
    refused.add(put(place, 1, place.lora_adapters / "chosen-v1"))
    routing = RoutingOptions(languages={"sv": "chosen"})
    with administered(place, place.settings(routing=routing), engine=REFUSING) as serving:
        assert ask(serving.http, "chosen").status_code == 503
        assert ask(serving.http, "oneseek", SWEDISH).status_code == 503
    with administered(
        place, place.settings(routing=RoutingOptions(default="chosen")), engine=REFUSING
    ) as one:
        assert ask(one.http, "chosen").status_code == 404
        assert ask(one.http, "oneseek", "?").headers["X-OneSeek-Adapter"] == "base"


def test_a_folder_that_is_refused_over_http_changes_nothing(place: Place, refused: set[str]) -> None:
    digest = put(place, 1, place.lora_adapters / "later" / "copy")
    with administered(place, place.settings(), engine=REFUSING) as serving:
        refused.add(digest)
        body = {"lora_name": "mine", "lora_path": str(place.lora_adapters / "later" / "copy")}
        answer = serving.http.post("/v1/load_lora_adapter", json=body)
        assert answer.status_code == 400
        assert ask(serving.http, "mine").status_code == 404
        refused.clear()
        assert serving.http.post("/v1/load_lora_adapter", json=body).status_code == 200
