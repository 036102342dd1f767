"""What /admin/adapters refuses over HTTP, and that nothing changes then."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from filelock import FileLock

from adapters.registry.registry import Registry
from tests.server.administered import (
    Place,
    add,
    administered,
    ask,
    change,
    done,
    error,
    load,
    two_versions,
    unload,
    until,
)
from tests.server.http_server import Serving


def test_what_fails_after_it_was_loaded_leaves_the_engine(serving: Serving, place: Place) -> None:
    first, _ = two_versions(serving.http, place)
    ledger = place.home / "ledger" / "ledger.jsonl"
    ledger.write_bytes(ledger.read_bytes().replace(b"zero@v1.1", b"zero@v9.9"))
    told = error(change(serving.http, "zero@v1.1", "promote"), 503)
    assert told["code"] == "registry_unusable"
    assert str(place.home) not in told["message"]
    assert ask(serving.http, "zero").headers["X-OneSeek-Adapter-Digest"] == first
    until(lambda: list(serving.engine.state().resident) == [first])


def test_another_bases_version_is_not_promoted_here(serving: Serving, place: Place) -> None:
    two_versions(serving.http, place)
    by_hand = place.home / "registry" / "zero" / "v3.0"
    shutil.copytree(place.more(3), by_hand)
    manifest = {"alias": "zero", "version": "v3.0", "base_digest": "sha256:" + "1" * 64}
    (by_hand / "oneseek.json").write_text(json.dumps(manifest), encoding="utf-8")
    told = error(change(serving.http, "zero@v3.0", "promote"), 409)
    assert re.search(r"\bzero@v3\.0\b.*\bmistral-7b-instruct\b", told["message"])
    active = Registry(place.home).listing().pointers.active("zero")
    assert active == "v1.0", "nothing has moved"


@pytest.mark.parametrize(
    ("name", "verb", "status", "code"),
    [
        ("nobody@v1", "promote", 404, "adapter_not_found"),
        ("zero@v9", "promote", 404, "adapter_not_found"),
        ("zero", "promote", 400, "version_needed"),
        ("zero", "retire", 400, "version_needed"),
        ("zero@v1.0", "retire", 409, "adapter_conflict"),
        ("zero", "rollback", 409, "adapter_conflict"),
        ("zero@v1.0", "rollback", 409, "adapter_conflict"),
        ("nobody", "rollback", 404, "adapter_not_found"),
        ("nobody", "verify", 404, "adapter_not_found"),
        ("extra@v1.0", "promote", 409, "adapter_conflict"),
        ("extra@v1.0", "retire", 409, "adapter_conflict"),
        ("zero@v1.0", "shout", 404, "not_found"),
        ("..%2f..%2fetc", "verify", 404, "not_found"),
        ("%2e%2e", "verify", 404, "adapter_not_found"),
        ("a" * 5000, "verify", 404, "adapter_not_found"),
    ],
)
def test_what_cannot_be_done_is_said(shared: Serving, name: str, verb: str, status: int, code: str) -> None:
    answer = change(shared.http, name, verb)
    assert error(answer, status)["code"] == code
    assert len(answer.content) < 1000
    assert (answer.headers.get("x-should-retry") == "false") is (status == 409)


@pytest.fixture(scope="module")
def shared(
    tmp_path_factory: pytest.TempPathFactory,
    tiny_base: Path,
    make_adapter: Callable[..., Path],
) -> Iterator[Serving]:
    """One server for refusals: zero@v1.0 (active) and zero@v1.1 in the registry, extra@v1.0 loaded."""
    place = Place.make(tmp_path_factory.mktemp("shared"), tiny_base, make_adapter)
    with administered(place, place.settings()) as serving:
        two_versions(serving.http, place)
        assert load(serving.http, "extra", place.more(3)).status_code == 200
        yield serving


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "path", "missing_required_parameter"),
        ({"path": 1}, "path", "invalid_value"),
        ({"path": "x", "alais": "x"}, "alais", "unknown_parameter"),
        ({"path": "x", "alias": "base"}, "alias", "invalid_value"),
        ({"path": "x", "alias": "a/b"}, "alias", "invalid_value"),
        ({"path": "x", "version": "1"}, "version", "invalid_value"),
        ({"path": "x", "language": "s"}, "language", "invalid_value"),
        ({"path": "x", "language": "12"}, "language", "invalid_value"),
        ({"path": "../x"}, "path", "path_refused"),
        ({"path": "/etc"}, "path", "path_refused"),
        ({"path": "https://example.com/x"}, "path", "path_refused"),
    ],
)
def test_misfits_of_adding_are_named(shared: Serving, body: dict[str, Any], param: str, code: str) -> None:
    told = error(shared.http.post("/admin/adapters", json=body), 400)
    assert (told["param"], told["code"]) == (param, code)


def test_what_takes_no_body_says_so(shared: Serving) -> None:
    told = error(change(shared.http, "zero", "rollback", json={"to": "v1"}), 400)
    assert (told["param"], told["code"]) == ("to", "unknown_parameter")
    huge = b'{"x": "' + b"x" * 100_000 + b'"}'
    headers = {"Content-Type": "application/json"}
    assert change(shared.http, "zero", "rollback", content=huge, headers=headers).status_code == 413
    chunked = change(shared.http, "zero", "rollback", content=iter([b'{"a":', b"1}"]), headers=headers)
    assert error(chunked, 400)["param"] == "a"


def test_a_version_never_changes_and_the_refusal_names_no_folder(serving: Serving, place: Place) -> None:
    first, _ = two_versions(serving.http, place)
    again = done(add(serving.http, place.more(1), alias="zero", version="v1.0", language="sv"))
    assert (again["new"], again["digest"]) == (False, first)
    told = error(add(serving.http, place.more(3), alias="zero", version="v1.0"), 409)
    assert str(place.root) not in told["message"]
    assert str(place.home) not in told["message"]


def test_what_the_registry_holds_is_not_unloaded_in_memory(serving: Serving, place: Place) -> None:
    two_versions(serving.http, place)
    told = unload(serving.http, "zero@v1.0").json()["error"]
    assert (told["code"], told["type"]) == (400, "InvalidUserInput")
    assert "/admin/adapters/zero@v1.0/retire" in told["message"]
    assert load(serving.http, "zero@v1.0", place.more(3), load_inplace=True).status_code == 400


def test_a_ledger_that_does_not_verify_lets_nothing_in(place: Place) -> None:
    with administered(place, place.settings()) as serving:
        done(add(serving.http, place.more(1), alias="zero", language="sv"))
    settings = place.settings(require_provenance=True)
    with administered(place, settings) as serving:
        ledger = place.home / "ledger" / "ledger.jsonl"
        ledger.write_bytes(ledger.read_bytes().replace(b"zero@v1.0", b"zero@v9.9"))
        told = load(serving.http, "extra", place.more(1)).json()["error"]
        assert (told["code"], told["type"]) == (503, "ServiceUnavailableError")
        assert str(place.home) not in told["message"]
        assert ask(serving.http, "zero").status_code == 200


def test_nothing_is_promoted_into_a_ledger_whose_first_entry_was_changed(
    serving: Serving, place: Place
) -> None:
    first, _ = two_versions(serving.http, place)
    path = place.home / "ledger" / "ledger.jsonl"
    whole = path.read_bytes()
    path.write_bytes(whole.replace(b'"add"', b'"abb"', 1))
    before = (place.home / "registry" / "active.json").read_bytes()
    for verb, name in (("promote", "zero@v1.1"), ("retire", "zero@v1.1")):
        answer = change(serving.http, name, verb)
        told = error(answer, 503)
        assert told["code"] == "registry_unusable"
        assert "oneseek ledger verify" in told["message"]
        assert answer.headers["x-should-retry"] == "false"
    assert (place.home / "registry" / "active.json").read_bytes() == before
    assert ask(serving.http, "zero").headers["X-OneSeek-Adapter-Digest"] == first
    path.write_bytes(whole)
    done(change(serving.http, "zero@v1.1", "promote"))
    shutil.rmtree(place.home / "ledger")
    told = error(change(serving.http, "zero@v1.0", "promote"), 503)
    assert "oneseek ledger repair --new" in told["message"]
    assert not (place.home / "ledger" / "ledger.jsonl").exists()


def test_a_registry_that_another_process_holds_is_named_no_folder(
    serving: Serving, place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    two_versions(serving.http, place)
    monkeypatch.setattr("adapters.registry.registry.PATIENCE", 0.1)
    with FileLock(place.home / "registry" / ".lock"):
        told = error(change(serving.http, "zero@v1.1", "promote"), 409)
    assert " 0.1 " in told["message"]
    assert str(place.home) not in told["message"]
