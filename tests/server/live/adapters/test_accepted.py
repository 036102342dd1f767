"""What was never accepted has no name anywhere; what a pointer names and is damaged since answers 503."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from adapters.bases import find_base
from adapters.errors import AdapterError
from adapters.ledger import Ledger
from adapters.registry.intake import Base
from adapters.registry.registry import Registry
from server.__main__ import main
from server.live.catalogue import open_catalogue
from tests.adapters.malformed import corpus
from tests.server.administered import ENGLISH, SWEDISH, Place, add, administered, ask, change, done, until

Out = pytest.CaptureFixture[str]
CONFIG, WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
BROKEN: dict[str, Callable[[Any], Any]] = {
    "nan": lambda array: array * np.float32(np.nan),
    "infinite": lambda array: array + np.float32(np.inf),
    "zeros": np.zeros_like,
    "float64": lambda array: array.astype("f8"),
    "int8": lambda array: array.astype("i1"),
    "huge": lambda array: array * np.float32(1e30),
}


NOTED = {"manifest-about-grows", "manifest-metrics-many", "manifest-parents-many"}
"""Cases whose notes are too long for the ledger alone, which a folder has nothing to do with."""


def write_broken(good: Path, folder: Path, kind: str) -> Path:
    folder.mkdir(parents=True)
    shutil.copy(good / CONFIG, folder)
    tensors = {name: BROKEN[kind](array) for name, array in load_file(good / WEIGHTS).items()}
    save_file(tensors, folder / WEIGHTS)
    return folder


@pytest.fixture(scope="module")
def good(make_adapter: Callable[..., Path]) -> Path:
    return make_adapter("good", 77)


@pytest.fixture
def place(tmp_path: Path, tiny_base: Path, make_adapter: Callable[..., Path]) -> Place:
    return Place.make(tmp_path, tiny_base, make_adapter)


def registry(place: Place) -> Registry:
    """As a verb opens it in the installation."""
    outside = lambda: open_catalogue(place.settings(), place.root).outside  # noqa: E731
    return Registry(place.home, Ledger.open(place.home / "ledger"), outside)


def base_of(place: Place) -> Base:
    return Base.read(find_base(place.root), place.home / "cache")


def folder_version(place: Place, number: int = 1, name: str = "zero-v1") -> Path:
    """A version of `zero` in lora_adapters, without oneseek.json."""
    return shutil.copytree(place.more(number), place.lora_adapters / name)


@pytest.mark.parametrize("where", ["lora_adapters", "registry", "settings"])
def test_broken_numbers_have_no_name(place: Place, good: Path, where: str) -> None:
    for kind in BROKEN:
        if where == "settings":
            folder = write_broken(good, place.root / f"{kind}-v1", kind)
            with pytest.raises(AdapterError, match=kind):
                open_catalogue(place.settings(adapters=(f"{kind}={folder}",)), place.root)
        elif where == "registry":
            write_broken(good, place.home / "registry" / kind / "v1", kind)
        else:
            write_broken(good, place.lora_adapters / f"{kind}-v1-SV", kind)
    for _ in range(2):  # what was checked before is as what is checked now
        catalogue = open_catalogue(place.settings(), place.root)
        assert catalogue.served.adapters() == ()
        if where != "settings":
            told = [[note for note in catalogue.notes if kind in note] for kind in BROKEN]
            assert [len(notes) for notes in told] == [1] * len(BROKEN)


@pytest.mark.parametrize("where", ["lora_adapters", "registry"])
def test_nothing_of_the_whole_corpus_has_a_name(place: Place, good: Path, where: str) -> None:
    names: dict[str, str] = {}
    for number, case in enumerate(corpus()):
        names[f"case-{number}"] = case.name
        top = place.lora_adapters if where == "lora_adapters" else place.home / "registry"
        made = case.write(good, place.root / "made" / str(number))
        folder = top / f"case-{number}-v1" if where == "lora_adapters" else top / f"case-{number}" / "v1"
        folder.parent.mkdir(parents=True, exist_ok=True)
        if made.is_dir():
            made.rename(folder)
    catalogue = open_catalogue(place.settings(), place.root)
    served = {one.alias for one in catalogue.served.adapters() if one.problem is None}
    assert {name for alias, name in names.items() if alias in served} == NOTED


def test_a_server_offers_nothing_that_is_broken(place: Place, good: Path) -> None:
    for kind, name in (("nan", "nan-v1-SV"), ("zeros", "zero-v1-DE"), ("float64", "f64")):
        write_broken(good, place.lora_adapters / name, kind)
    with administered(place, place.settings(follow_registry=0.05)) as serving:
        client = serving.http
        listed = client.get("/v1/models").text + client.get("/admin/adapters").text
        listed += json.dumps(client.get("/health").json()["adapters"])
        assert not [name for name in ("nan", "zero-de", "f64") if name in listed]
        for name in ("nan-sv", "nan-sv@v1", "zero-de", "f64", "sv"):
            assert ask(client, name).status_code == 404
        assert ask(client, "oneseek", SWEDISH).headers["X-OneSeek-Adapter"] == "base"
        answer = client.post("/inference/oneseek", json={"text": SWEDISH})
        assert (answer.status_code, answer.headers["X-OneSeek-Adapter"]) == (200, "base")
        write_broken(good, place.home / "registry" / "late" / "v1", "nan")
        write_broken(good, place.home / "registry" / "late" / "v2", "float64")
        shutil.copytree(good, place.home / "registry" / "fine" / "v1")
        until(lambda: ask(client, "fine").status_code == 200)
        assert ask(client, "late").status_code == 404


def test_a_pickle_with_broken_numbers_is_refused(place: Place, good: Path) -> None:
    torch = pytest.importorskip("torch")
    weights = place.root / "weights"
    weights.mkdir()
    tensors = load_file(good / WEIGHTS)
    torch.save(
        {name: torch.from_numpy(array * np.nan) for name, array in tensors.items()}, weights / "x-v1.pth"
    )
    catalogue = open_catalogue(place.settings(), place.root)
    assert not catalogue.served.is_adapter("x")
    assert any("oneseek adapters import" in note for note in catalogue.notes)
    from adapters.pth.importer import import_pickle

    with pytest.raises(AdapterError, match="NaN"):
        import_pickle(registry(place), weights / "x-v1.pth", base=base_of(place), language="sv", alpha=8)
    assert not open_catalogue(place.settings(), place.root).served.is_adapter("x")


def pointed(place: Place) -> None:
    """zero@v1 in lora_adapters is active, and zero@v2 in the registry waits."""
    folder_version(place, 1, "zero-v1-SV")
    added = registry(place).add(
        place.more(2), base=base_of(place), alias="zero-sv", version="v2", language="sv"
    )
    assert (added.active, added.stands) == (False, "zero-sv@v1")


@pytest.mark.parametrize("damage", ["missing", "cut", "nan", "renamed"])
def test_a_pointer_to_a_folder_that_is_damaged(place: Place, good: Path, damage: str) -> None:
    pointed(place)
    folder = place.lora_adapters / "zero-v1-SV"
    match damage:
        case "cut":
            (folder / WEIGHTS).write_bytes((folder / WEIGHTS).read_bytes()[:400])
        case "renamed":
            (folder / "oneseek.json").write_text(json.dumps({"alias": "other"}), "utf-8")
        case _:
            shutil.rmtree(folder)
            if damage == "nan":
                write_broken(good, folder, "nan")
    with administered(place, place.settings()) as serving:
        client = serving.http
        # What was renamed speaks the language as well, so that it names none of both.
        for name in ("zero-sv", "zero-sv@v1", *(("sv",) if damage != "renamed" else ())):
            answer = ask(client, name)
            assert (answer.status_code, answer.json()["error"]["code"]) == (503, "adapter_unavailable"), name
        assert ask(client, "oneseek", SWEDISH).status_code == (200 if damage == "renamed" else 503)
        assert ask(client, "zero-sv@v2").status_code == 200
        assert ask(client, "oneseek", ENGLISH).status_code == 200
        assert client.get("/ready").status_code == 200
        assert done(change(client, "zero-sv@v2", "promote"))["before"] == "zero-sv@v1"
        assert ask(client, "zero-sv").status_code == 200
    assert open_catalogue(place.settings(), place.root).served.active("zero-sv").full_name == "zero-sv@v2"


def test_a_running_server_notices_what_happens_to_a_folder_that_a_pointer_names(place: Place) -> None:
    pointed(place)
    folder = place.lora_adapters / "zero-v1-SV"
    with administered(place, place.settings(follow_registry=0.05)) as serving:
        client = serving.http
        first = ask(client, "zero-sv").headers["X-OneSeek-Adapter-Digest"]
        kept = shutil.copytree(folder, place.root / "kept")
        shutil.rmtree(folder)

        def problem() -> str | None:
            return {row["name"]: row["problem"] for row in client.get("/health").json()["adapters"]}[
                "zero-sv@v1"
            ]

        until(lambda: problem() is not None)
        assert ask(client, "zero-sv").headers["X-OneSeek-Adapter-Digest"] == first, "it goes on from memory"
        shutil.copytree(kept, folder)
        until(lambda: problem() is None)
        shutil.copy(place.more(3) / WEIGHTS, folder / WEIGHTS)
        until(lambda: ask(client, "zero-sv").headers["X-OneSeek-Adapter-Digest"] != first)
        fresh = open_catalogue(place.settings(), place.root).served.active("zero-sv")
        assert ask(client, "zero-sv").headers["X-OneSeek-Adapter-Digest"] == fresh.digest


def test_over_http_a_folder_is_a_version_as_any_other(place: Place) -> None:
    folder_version(place, 1)
    with administered(place, place.settings()) as serving:
        client = serving.http
        added = done(add(client, place.more(2), alias="zero", version="v2"))
        assert (added["active"], added["active_version"]) == (False, "zero@v1")
        assert added["promote"] == "POST /admin/adapters/zero@v2/promote"
        assert change(client, "zero@v1", "retire").status_code == 409, "it is active"
        assert done(change(client, "zero@v2", "promote"))["before"] == "zero@v1"
        assert done(change(client, "zero", "rollback"))["name"] == "zero@v1"
        done(change(client, "zero@v2", "promote"))
        done(change(client, "zero@v1", "retire"))
        assert ask(client, "zero@v1").status_code == 404
        rows = {row["name"]: row for row in client.get("/admin/adapters").json()["data"]}
        assert (rows["zero@v1"]["retired"], rows["zero@v1"]["from"]) == (True, "start")
    with administered(place, place.settings()) as serving:
        assert ask(serving.http, "zero@v1").status_code == 404, "a restart does not bring it back"
        assert done(change(serving.http, "zero@v1", "promote"))["before"] == "zero@v2"
        assert ask(serving.http, "zero").headers["X-OneSeek-Adapter"] == "zero@v1"
        assert done(change(serving.http, "zero", "rollback"))["name"] == "zero@v2"


def test_without_a_pointer_the_order_of_places_decides(place: Place) -> None:
    def active(*adapters: str) -> str:
        settings = place.settings(adapters=adapters)
        return open_catalogue(settings, place.root).served.active("zero").full_name

    folder_version(place, 1, "zero-v3")
    folder_version(place, 2, "zero-v3.1")
    assert active() == "zero@v3.1", "the highest of a place"
    shutil.copytree(place.more(3), place.home / "registry" / "zero" / "v2")
    assert active() == "zero@v2", "the registry goes before lora_adapters"
    assert active(f"zero@v1={place.more(4)}") == "zero@v1", "and what the settings name before that"
    assert not (place.home / "registry" / "active.json").exists(), "nothing is written at discovery"
    registry(place).promote("zero@v3")
    assert active(f"zero@v1={place.more(4)}") == "zero@v3"


def test_homes_of_earlier_releases_work(place: Place) -> None:
    """Their pointers name versions of the registry alone; what is retired is so wherever it lies."""
    folder_version(place, 1, "zero-v1")
    folder_version(place, 2, "zero-v3")
    shutil.copytree(place.more(3), place.home / "registry" / "zero" / "v2")
    state = {"format": 1, "aliases": {"zero": {"history": ["v2"], "retired": ["v3"]}}}
    (place.home / "registry" / "active.json").write_text(json.dumps(state), "utf-8")
    (place.home / "format").unlink(missing_ok=True)
    served = open_catalogue(place.settings(), place.root).served
    assert [one.full_name for one in served.adapters()] == ["zero@v1", "zero@v2"]
    assert served.active("zero").full_name == "zero@v2"
    Ledger.open(place.home / "ledger").begin_anew()
    registry(place).promote("zero@v1")
    assert registry(place).rollback("zero").after.full_name == "zero@v2"


def test_a_lost_pointer_to_a_folder_is_missed_and_written_anew(place: Place, capsys: Out) -> None:
    pointed(place)
    path = place.home / "registry" / "active.json"
    before = json.loads(path.read_text("utf-8"))
    path.unlink()
    catalogue = open_catalogue(place.settings(), place.root)
    assert any("oneseek adapters repair" in note for note in catalogue.notes)
    assert catalogue.served.resolve("zero-sv@v2").problem, "nobody promoted it"
    assert main(["adapters", "repair", "--home", str(place.home)]) == 0
    capsys.readouterr()
    assert json.loads(path.read_text("utf-8")) == before


def test_a_server_that_starts_elsewhere_finds_what_was_promoted(place: Place, tiny_base: Path) -> None:
    pointed(place)
    other = place.root.parent / "other"
    shutil.copytree(tiny_base, other / "models" / "mistral-7b-instruct")
    served = open_catalogue(place.settings(), other).served
    assert (served.active("zero-sv").full_name, served.active("zero-sv").problem) == ("zero-sv@v1", None)


def test_an_alias_of_another_base_is_new_on_this_one(place: Place) -> None:
    pointed(place)
    path = place.home / "registry" / "active.json"
    state = json.loads(path.read_text("utf-8"))
    state["aliases"]["zero-sv"]["folders"]["v1"]["base"] = "sha256:" + "1" * 64
    path.write_text(json.dumps(state), "utf-8")
    shutil.rmtree(place.lora_adapters / "zero-v1-SV")
    served = open_catalogue(place.settings(), place.root).served
    assert (served.active("zero-sv").full_name, served.active("zero-sv").problem) == ("zero-sv@v2", None)
