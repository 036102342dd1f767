"""/admin/adapters over HTTP: the registry on disk changes, and the answer means that this server follows."""

from __future__ import annotations

import asyncio
import threading

from adapters.ledger import Ledger
from adapters.lora.manifest import read_manifest
from adapters.registry.registry import Registry
from server.api.fields.admin import admin_table
from server.config.settings import RoutingOptions
from tests.server.administered import (
    ENGLISH,
    Place,
    add,
    administered,
    ask,
    asking,
    change,
    done,
    error,
    load,
    two_versions,
    unload,
    until,
)
from tests.server.documented import documented
from tests.server.http_server import Serving

NAMES = {"name", "alias", "version", "digest", "language", "from"}
FIELDS = NAMES | {"base", "problem", "served", "active", "retired", "tier", "share", "shadow", "requests"}


def test_the_documented_fields_are_the_code() -> None:
    assert documented("Administration") == admin_table()


def test_a_version_is_added_shown_promoted_and_retired(serving: Serving, place: Place) -> None:
    client = serving.http
    assert client.get("/admin/adapters").json() == {"object": "list", "data": []}
    first, second = two_versions(client, place)
    assert ask(client, "zero").headers["X-OneSeek-Adapter"] == "zero@v1.0"
    assert ask(client, "oneseek").headers["X-OneSeek-Adapter"] == "zero@v1.0", "routing knows the language"
    rows = client.get("/admin/adapters").json()["data"]
    assert [set(row) for row in rows] == [FIELDS] * 2
    assert [(row["name"], row["digest"], row["active"], row["from"]) for row in rows] == [
        ("zero@v1.0", first, True, "registry"),
        ("zero@v1.1", second, False, "registry"),
    ]
    assert rows[0]["tier"] == "device"

    assert done(change(client, "zero@v1.1", "promote")) == {
        "name": "zero@v1.1", "digest": second, "live": True, "before": "zero@v1.0", "active": True,
    }  # fmt: skip
    assert ask(client, "zero").headers["X-OneSeek-Adapter-Digest"] == second
    assert done(change(client, "zero@v1.1", "promote"))["before"] == "zero@v1.1", "again, nothing changes"

    assert done(change(client, "zero", "rollback"))["name"] == "zero@v1.0"
    assert ask(client, "zero").headers["X-OneSeek-Adapter-Digest"] == first
    assert done(change(client, "zero@v1.1", "retire", json={}))["active"] is False
    assert ask(client, "zero@v1.1").status_code == 404
    retired = client.get("/admin/adapters").json()["data"][1]
    assert (retired["name"], retired["served"], retired["retired"]) == ("zero@v1.1", False, True)
    assert retired["digest"] == second
    assert done(change(client, "zero@v1.1", "promote"))["name"] == "zero@v1.1", "promoting brings it back"
    assert ask(client, "zero").headers["X-OneSeek-Adapter-Digest"] == second

    assert Ledger.open(place.home / "ledger").verify().faults == ()
    actions = [entry.record.action for entry in Ledger.open(place.home / "ledger").entries()]
    assert actions == ["add", "add", "promote", "rollback", "retire", "promote"]


def test_details_tell_manifest_and_lineage(serving: Serving, place: Place) -> None:
    client = serving.http
    first, _ = two_versions(client, place)
    shown = client.get("/admin/adapters/zero").json()
    assert shown["name"] == "zero@v1.0"
    assert set(shown) == FIELDS | {"history", "manifest", "lineage"}
    assert shown["manifest"]["rank"] == 4
    assert shown["manifest"]["digest"] == first
    assert [entry["action"] for entry in shown["lineage"]["made"]] == ["add"]
    assert [source["role"] for source in shown["lineage"]["sources"]] == ["base"]
    done(change(client, "zero@v1.1", "promote"))
    done(change(client, "zero@v1.0", "retire"))
    gone = client.get("/admin/adapters/zero@v1.0").json()
    assert (gone["served"], gone["retired"], gone["manifest"]["digest"]) == (False, True, first)
    assert load(client, "extra", place.more(3)).status_code == 200
    loaded = client.get("/admin/adapters/extra").json()
    assert (loaded["from"], loaded["lineage"], loaded["manifest"]) == ("loaded", None, {})
    assert error(client.get("/admin/adapters/nobody"), 404)["code"] == "adapter_not_found"


def test_one_slot_is_enough_for_a_promotion_and_every_version_answers(place: Place) -> None:
    with administered(place, place.settings(), slots=1) as serving:
        first, second = two_versions(serving.http, place)
        assert done(change(serving.http, "zero@v1.1", "promote"))["live"]
        for name, digest in (("zero", second), ("zero@v1.0", first), ("zero", second)):
            assert ask(serving.http, name).headers["X-OneSeek-Adapter-Digest"] == digest
        told = change(serving.http, "zero", "shadow", json={"version": "v1.0", "share": 50})
        assert (told.status_code, told.json()["live"]) == (202, False), "it would take the only slot for good"


def test_a_second_alias_of_one_language_is_said(serving: Serving, place: Place) -> None:
    client = serving.http
    two_versions(client, place)
    second = done(add(client, place.more(3), alias="one", language="sv"))
    assert second["contested"] == ["one", "zero"]
    assert ask(client, "oneseek").headers["X-OneSeek-Adapter"] == "base"
    done(change(client, "one@v1.0", "retire"))
    assert "contested" not in done(change(client, "zero@v1.1", "promote"))
    assert ask(client, "oneseek").headers["X-OneSeek-Adapter"] == "zero@v1.1"


def test_verify_tells_what_was_changed(serving: Serving, place: Place) -> None:
    two_versions(serving.http, place)
    whole = change(serving.http, "zero", "verify").json()["data"]
    assert [(row["name"], row["whole"], row["fits_the_base"]) for row in whole] == [
        ("zero@v1.0", True, True),
        ("zero@v1.1", True, True),
    ]
    weights = place.home / "registry" / "zero" / "v1.1" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    rows = change(serving.http, "zero", "verify").json()["data"]
    assert [row["whole"] for row in rows] == [True, False]
    assert str(place.home) not in rows[1]["problem"]
    one = change(serving.http, "zero@v1.0", "verify").json()["data"]
    assert [row["name"] for row in one] == ["zero@v1.0"]
    told = error(change(serving.http, "zero@v1.1", "promote"), 400)
    assert (told["code"], told["param"]) == ("adapter_rejected", "name")
    assert str(place.home) not in told["message"]


def test_a_loaded_adapter_outlives_what_the_registry_does(serving: Serving, place: Place) -> None:
    """Also where it was loaded from the registry's own folder under another name."""
    client = serving.http
    two_versions(client, place)
    own = place.home / "registry" / "zero" / "v1.1"
    assert load(client, "copy", own).status_code == 200
    assert load(client, "extra", place.more(3)).status_code == 200
    done(change(client, "zero@v1.1", "retire"))
    assert ask(client, "zero@v1.1").status_code == 404
    assert ask(client, "copy").headers["X-OneSeek-Adapter"] == "copy@v1.1"
    done(change(client, "zero@v1.1", "promote"))
    assert ask(client, "zero").headers["X-OneSeek-Adapter"] == "zero@v1.1"
    for name in ("copy", "extra"):
        assert ask(client, name).status_code == 200
        assert unload(client, name).status_code == 200
    assert ask(client, "zero").status_code == 200, "it shares its weights with copy, which is gone"


def test_provenance_is_asked_of_what_is_loaded(place: Place) -> None:
    settings = place.settings(require_provenance=True)
    with administered(place, place.settings()) as serving:
        done(add(serving.http, place.more(1), alias="zero", language="sv"))
    with administered(place, settings) as serving:
        told = load(serving.http, "extra", place.more(2)).json()["error"]
        assert (told["code"], told["param"]) == (400, "lora_path")
        assert "require_provenance" in told["message"]
        assert not serving.served.is_adapter("extra")
        assert load(serving.http, "known", place.more(1)).status_code == 200, "its digest is in the ledger"
        done(add(serving.http, place.more(2), alias="one", language="en"))
        assert ask(serving.http, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "one@v1.0"


def test_what_a_late_request_brought_back_leaves_again(place: Place) -> None:
    with administered(place, place.settings(follow_registry=0.05)) as serving:
        done(add(serving.http, place.more(1), alias="zero", language="sv"))
        held = set(serving.engine.state().resident)
        stray = read_manifest(place.more(2), alias="gone", version="v1")
        asyncio.run_coroutine_threadsafe(serving.engine.load(stray), serving.loop).result(30)
        until(lambda: set(serving.engine.state().resident) == held)


def test_a_change_that_cannot_be_live_here_is_accepted_and_not_called_done(place: Place) -> None:
    with administered(place, place.settings()) as serving:
        done(add(serving.http, place.more(1), alias="zero", version="v1.0", language="sv"))
    settings = place.settings(routing=RoutingOptions(languages={"sv": "zero"}))
    with administered(place, settings) as serving:
        answer = change(serving.http, "zero@v1.0", "retire")
        assert (answer.status_code, answer.json()["live"]) == (202, False)
        counted = serving.counts()['oneseek_admin_changes_total{action="retire",outcome="pending"}']
        assert counted == 1


def test_two_servers_on_one_home(place: Place) -> None:
    settings = place.settings(follow_registry=0.05)
    with administered(place, settings) as one, administered(place, settings) as two:
        first, second = two_versions(one.http, place)
        until(lambda: two.served.is_adapter("zero@v1.1"))
        with asking(two, "zero", clients=2) as answers:
            until(lambda: len(answers.seen) > 2)
            done(change(one.http, "zero@v1.1", "promote"))
            until(lambda: two.served.resolve("zero").digest == second)
            done(change(two.http, "zero", "rollback"))
            until(lambda: one.served.resolve("zero").digest == first)
        assert answers.statuses == {200}
        done(add(two.http, place.more(3), alias="zero", version="v1.2", language="sv"))
        until(lambda: one.served.is_adapter("zero@v1.2"))
        outcomes: list[int] = []

        def promote(serving: Serving, version: str) -> None:
            answers = (change(serving.http, f"zero@{version}", "promote") for _ in range(3))
            outcomes.extend(answer.status_code for answer in answers)

        both = [threading.Thread(target=promote, args=pair) for pair in ((one, "v1.1"), (two, "v1.2"))]
        for thread in both:
            thread.start()
        for thread in both:
            thread.join()
        assert set(outcomes) <= {200, 202}
        active = Registry(place.home).listing().active("zero")
        assert active is not None
        for serving in (one, two):
            until(lambda serving=serving: serving.served.active("zero").version == active.version)
            assert ask(serving.http, "zero").headers["X-OneSeek-Adapter"] == active.full_name
        assert Ledger.open(place.home / "ledger").verify().faults == ()
