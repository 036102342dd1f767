"""A version that was accepted and is damaged since: 503 by every name, never another version in its place."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from adapters.bases import find_base
from adapters.errors import AdapterError
from adapters.files.hashes import HashCache, hash_file
from adapters.ledger import Ledger
from adapters.lora.weights import ModelShape, read_adapter
from adapters.registry.intake import Base
from adapters.registry.registry import Registry
from server.__main__ import main
from server.live.catalogue import open_catalogue
from tests.server.administered import (
    ENGLISH,
    SWEDISH,
    Place,
    add,
    administered,
    ask,
    change,
    done,
    two_versions,
    until,
)
from tests.server.http_server import Serving

Out = pytest.CaptureFixture[str]
CONFIG, WEIGHTS, MANIFEST = "adapter_config.json", "adapter_model.safetensors", "oneseek.json"


@pytest.fixture(scope="module")
def whole(
    tmp_path_factory: pytest.TempPathFactory, tiny_base: Path, make_adapter: Callable[..., Path]
) -> Place:
    """zero@v1.0, Swedish and active, zero@v1.1, and one@v1, English."""
    place = Place.make(tmp_path_factory.mktemp("whole"), tiny_base, make_adapter)
    with administered(place, place.settings()) as serving:
        two_versions(serving.http, place)
        done(add(serving.http, place.more(3), alias="one", version="v1", language="en"))
    return place


@pytest.fixture
def place(whole: Place, tmp_path: Path) -> Place:
    """A copy to damage."""
    shutil.copytree(whole.root, tmp_path / "root")
    shutil.copytree(whole.home, tmp_path / "home")
    return Place(tmp_path / "root", tmp_path / "home", whole.graphs)


def folder(place: Place, version: str = "v1.0") -> Path:
    return place.home / "registry" / "zero" / version


def flip(path: Path, at: int = -1) -> None:
    data = bytearray(path.read_bytes())
    data[at] ^= 1
    path.write_bytes(bytes(data))


def set_field(path: Path, name: str, value: object) -> None:
    fields = json.loads(path.read_text("utf-8"))
    path.write_text(json.dumps({**fields, name: value}), "utf-8")


def instead(path: Path, make: Callable[[Path], object]) -> None:
    path.unlink()
    make(path)


def without_manifest(version: Path) -> None:
    (version / MANIFEST).unlink()
    flip(version / WEIGHTS)


DAMAGES: dict[str, Callable[[Path], object]] = {
    "weights-flipped": lambda version: flip(version / WEIGHTS),
    "weights-header-flipped": lambda version: flip(version / WEIGHTS, 9),
    "weights-cut": lambda version: os.truncate(version / WEIGHTS, 700),
    "weights-empty": lambda version: os.truncate(version / WEIGHTS, 0),
    "weights-missing": lambda version: (version / WEIGHTS).unlink(),
    "weights-folder": lambda version: instead(version / WEIGHTS, Path.mkdir),
    "weights-pipe": lambda version: instead(version / WEIGHTS, os.mkfifo),
    "weights-loop": lambda version: instead(version / WEIGHTS, lambda path: path.symlink_to(path)),
    "weights-device": lambda version: instead(version / WEIGHTS, lambda path: path.symlink_to("/dev/zero")),
    "weights-of-another": lambda version: shutil.copy(version.parent / "v1.1" / WEIGHTS, version / WEIGHTS),
    "config-flipped": lambda version: flip(version / CONFIG, 1),
    "config-changed": lambda version: set_field(version / CONFIG, "lora_alpha", 3),
    "config-missing": lambda version: (version / CONFIG).unlink(),
    "config-pipe": lambda version: instead(version / CONFIG, os.mkfifo),
    "manifest-flipped": lambda version: flip(version / MANIFEST, 0),
    "manifest-pipe": lambda version: instead(version / MANIFEST, os.mkfifo),
    "manifest-digest": lambda version: set_field(version / MANIFEST, "digest", "sha256:" + "1" * 64),
    "manifest-base": lambda version: set_field(version / MANIFEST, "base_digest", "sha256:" + "1" * 64),
    "manifest-version": lambda version: set_field(version / MANIFEST, "version", "v9"),
    "manifest-alias": lambda version: set_field(version / MANIFEST, "alias", "zerp"),
    "manifest-gone-and-weights-flipped": without_manifest,
    "folder-missing": shutil.rmtree,
    "folder-empty": lambda version: [path.unlink() for path in version.iterdir()],
    "folder-a-file": lambda version: (shutil.rmtree(version), version.write_text("", "utf-8")),
}


FOUND_WHEN_LOADED = {"weights-flipped", "weights-of-another", "config-changed", "manifest-digest"}
"""Their files fit together: only the digest of the weights tells."""


@pytest.mark.parametrize("damage", sorted(FOUND_WHEN_LOADED))
def test_weights_are_hashed_when_they_are_loaded_and_what_was_hashed_is_known(
    place: Place, damage: str
) -> None:
    settings = place.settings()
    hashes = HashCache(hash_file(settings.home))
    base = find_base(place.root, settings.base_model)
    before = open_catalogue(settings, place.root).served.active("zero")
    read_adapter(before.path, ModelShape.read(base.path), digest=before.digest, hashes=hashes)
    DAMAGES[damage](folder(place))
    active = open_catalogue(settings, place.root).served.active("zero")
    if damage.startswith("weights"):
        assert active.problem is None
        with pytest.raises(AdapterError, match="digest"):
            read_adapter(active.path, ModelShape.read(base.path), digest=active.digest, hashes=hashes)
    else:  # the weights are known from before, so that nothing has to be loaded
        assert active.problem


@pytest.mark.parametrize("damage", sorted(DAMAGES.keys() - FOUND_WHEN_LOADED))
def test_damage_leaves_the_version_active_and_unavailable(place: Place, damage: str) -> None:
    """What the registry is read as at a start; the server's answers are in the next test."""
    DAMAGES[damage](folder(place))
    served = open_catalogue(place.settings(), place.root).served
    active = served.active("zero")
    assert (active.full_name, active.digest) == ("zero@v1.0", "")
    assert active.problem
    assert str(place.home) not in active.problem
    assert served.resolve("zero@v1.1").problem is None
    assert served.languages() == {"en": "one", "sv": "zero"}, "its language is not answered by others"


def refused(answer: httpx.Response) -> str:
    assert answer.status_code == 503, answer.text
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert (error["code"], error["type"]) == ("adapter_unavailable", "server_error")
    assert answer.headers["x-should-retry"] == "false"
    assert "zero@v1.0" in error["message"]
    return error["message"]


def check_unavailable(serving: Serving) -> None:
    """zero@v1.0 answers 503 by every name, and everything else serves."""
    client = serving.http
    for model in ("zero", "ZERO", "zero@v1.0", "sv"):
        assert "digest" in refused(ask(client, model)), model
    refused(ask(client, "oneseek", SWEDISH))
    body = {"model": "oneseek", "messages": [{"role": "user", "content": ENGLISH}], "max_tokens": 2}
    for header in ("zero", "zero@v1.0", "sv", "zero=0.5,one=0.5"):
        refused(client.post("/v1/chat/completions", json=body, headers={"X-OneSeek-Adapter": header}))
    refused(ask(client, "zero", stream=True))
    assert ask(client, "zero@v1.1").headers["X-OneSeek-Adapter"] == "zero@v1.1"
    assert ask(client, "oneseek", ENGLISH).headers["X-OneSeek-Adapter"] == "one@v1"
    assert client.get("/ready").status_code == 200
    models = {entry["id"]: entry.get("problem") for entry in client.get("/v1/models").json()["data"]}
    assert models["zero"]
    assert models["zero"] == models["zero@v1.0"]
    assert (models["zero@v1.1"], models["one"]) == (None, None)
    health = {entry["name"]: entry["problem"] for entry in client.get("/health").json()["adapters"]}
    assert health["zero@v1.0"]
    assert health["one@v1"] is None
    rows = {row["name"]: row for row in client.get("/admin/adapters").json()["data"]}
    assert (rows["zero@v1.0"]["served"], rows["zero@v1.0"]["active"]) == (False, True)
    assert rows["zero@v1.0"]["problem"]


@pytest.mark.parametrize("provenance", [False, True])
def test_a_server_says_so_by_every_name_and_goes_on(place: Place, provenance: bool) -> None:
    flip(folder(place) / WEIGHTS)
    settings = place.settings(require_provenance=provenance, follow_registry=0.05)
    with administered(place, settings) as serving:
        check_unavailable(serving)
        client = serving.http
        for verb, name in (("promote", "zero@v1.0"), ("canary", "zero")):
            body = {"json": {"shares": {"v1.0": 50, "v1.1": 50}}} if verb == "canary" else {}
            assert change(client, name, verb, **body).status_code == 400
        assert done(change(client, "zero@v1.1", "promote"))["before"] == "zero@v1.0"
        assert ask(client, "zero").headers["X-OneSeek-Adapter"] == "zero@v1.1"
        told = change(client, "zero", "rollback")
        assert (told.status_code, told.json()["error"]["code"]) == (400, "adapter_rejected")
        assert ask(client, "zero").headers["X-OneSeek-Adapter"] == "zero@v1.1", "nothing has moved"
        flip(folder(place) / WEIGHTS)
        until(lambda: ask(client, "zero@v1.0").status_code == 200)
        assert done(change(client, "zero", "rollback"))["name"] == "zero@v1.0"


def test_damage_while_it_serves(place: Place) -> None:
    with administered(place, place.settings(follow_registry=0.05)) as serving:
        client = serving.http
        digest = ask(client, "zero").headers["X-OneSeek-Adapter-Digest"]
        flip(folder(place) / WEIGHTS)
        flip(folder(place, "v1.1") / WEIGHTS)

        def problems() -> dict[str, str | None]:
            rows = client.get("/health").json()["adapters"]
            return {row["name"]: row["problem"] for row in rows}

        until(lambda: all(problems()[f"zero@{version}"] for version in ("v1.0", "v1.1")))
        answer = ask(client, "zero")
        assert answer.headers["X-OneSeek-Adapter-Digest"] == digest, "what is resident goes on"
        assert ask(client, "zero@v1.1").status_code == 503, "what is not resident is not loaded"
        assert change(client, "zero@v1.1", "promote").status_code == 400
        os.utime(folder(place) / WEIGHTS, (1, 1))  # a clock that was set back
        flip(folder(place) / WEIGHTS)
        flip(folder(place, "v1.1") / WEIGHTS)
        until(lambda: not any(problems().values()))
        assert ask(client, "zero@v1.1").status_code == 200


@pytest.mark.parametrize("damaged", [WEIGHTS, MANIFEST, None])
def test_a_damaged_import_is_still_what_old_endpoints_fall_to(place: Place, damaged: str | None) -> None:
    registry = Registry(place.home, Ledger.open(place.home / "ledger"))
    base = Base.read(find_base(place.root), place.home / "cache")
    origin = {"origin": {"file": "old.pth"}}
    added = registry.add(place.more(4), base=base, alias="old", version="v1", notes=origin, action="import")
    version = added.adapter.path
    if damaged is None:
        shutil.rmtree(version)
    else:
        flip(version / damaged, 0)
    served = open_catalogue(place.settings(), place.root).served
    assert served.active("old").problem
    assert served.snapshot.imported == "old"


def test_what_was_never_accepted_has_no_name(place: Place) -> None:
    shutil.copytree(folder(place), place.lora_adapters / "junk")
    flip(place.lora_adapters / "junk" / WEIGHTS)
    (place.lora_adapters / "junk" / MANIFEST).unlink()
    os.truncate(place.lora_adapters / "junk" / WEIGHTS, 100)
    catalogue = open_catalogue(place.settings(), place.root)
    assert not catalogue.served.is_adapter("junk")
    assert "junk" in " ".join(catalogue.notes)


def test_a_damaged_pointer_is_repaired_from_the_ledger(place: Place, capsys: Out) -> None:
    registry = Registry(place.home, Ledger.open(place.home / "ledger"))
    registry.promote("zero@v1.1")
    registry.promote("zero@v1.0")
    registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    path = place.home / "registry" / "active.json"
    before = path.read_text("utf-8")
    history = json.loads(before)["aliases"]["zero"]
    for damage in ("{", None):
        path.unlink()
        if damage is not None:
            path.write_text(damage, "utf-8")
        served = open_catalogue(place.settings(), place.root).served
        problem = served.active("zero").problem
        assert problem
        assert "oneseek adapters repair" in problem
        assert main(["adapters", "promote", "zero@v1.0", "--home", str(place.home)]) == 1
        assert "oneseek adapters repair" in capsys.readouterr().err
        assert main(["adapters", "repair", "--json", "--home", str(place.home)]) == 0
        assert json.loads(capsys.readouterr().out)["active"] == {"one": "v1", "zero": "v1.0"}
        now = json.loads(path.read_text("utf-8"))["aliases"]["zero"]
        assert now["history"] == history["history"]
        assert now["split"]["canaries"] == history["split"]["canaries"]
    assert (path.with_name("active.json.damaged-1")).read_text("utf-8") == "{"


def test_a_server_with_a_damaged_pointer_serves_the_rest(place: Place) -> None:
    (place.home / "registry" / "active.json").write_text("{", "utf-8")
    shutil.copytree(folder(place), place.lora_adapters / "loose-v1")
    (place.lora_adapters / "loose-v1" / MANIFEST).unlink()
    with administered(place, place.settings(follow_registry=0.05)) as serving:
        assert "oneseek adapters repair" in refused(ask(serving.http, "zero@v1.0"))
        assert ask(serving.http, "loose").status_code == 200
        assert ask(serving.http, "base").status_code == 200
        Registry(place.home, Ledger.open(place.home / "ledger")).repair()
        until(lambda: ask(serving.http, "zero").status_code == 200)


def test_a_base_that_only_shapes_tell_of_is_told(place: Place, make_adapter: Callable[..., Path]) -> None:
    shutil.copytree(make_adapter("good", 77), place.lora_adapters / "plain-v1")
    with administered(place, place.settings()) as serving:
        client = serving.http
        told = {row["name"]: row["base"] for row in client.get("/health").json()["adapters"]}
        assert told == {
            "zero@v1.0": "verified", "zero@v1.1": "verified", "one@v1": "verified", "plain@v1": "unverified",
        }  # fmt: skip
        rows = {row["name"]: row["base"] for row in client.get("/admin/adapters").json()["data"]}
        assert rows["plain@v1"] == "unverified"
        bases = (
            ("plain", "unverified"),
            ("zero", "verified"),
            ("zero=0.5,plain=0.5", "unverified"),
            ("base", None),
        )
        for name, base in bases:
            assert ask(client, name).headers.get("X-OneSeek-Base-Check") == base
        added = done(add(client, place.lora_adapters / "plain-v1", alias="bound", version="v1"))
        assert added["base"] == "unverified"
    warnings = open_catalogue(place.settings(), place.root).warnings
    assert any("plain@v1" in warning and "bound" not in warning for warning in warnings)
