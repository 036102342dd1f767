"""Canaries and shadows in the registry on disk: what is taken, what ends them, and what is recorded."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from adapters.errors import LedgerError, UnknownAdapterError
from adapters.ledger import Ledger, Record
from adapters.lora.weights import ModelShape
from adapters.registry.pointers import ActiveFileError, Actives
from adapters.registry.store import Base, Store, StoreError

Make = Callable[..., Path]
TENSOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "home" / "ledger")


@pytest.fixture
def store(tmp_path: Path, ledger: Ledger, shape: ModelShape, make_adapter: Make) -> Store:
    """A registry with v1.0, which is active, v1.1 and v1.2 of `zero`, which is Swedish."""
    store = Store(tmp_path / "home", ledger)
    base = Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape)
    for number in range(3):
        tensors = {TENSOR: np.full((32, 4), number + 1, np.float32)}
        folder = make_adapter(f"zero-v1.{number}", tensors=tensors)
        store.add(folder, base=base, alias="zero", version=f"v1.{number}", language="sv")
    return store


def last(ledger: Ledger) -> Record:
    return list(ledger.entries())[-1].record


def shares(store: Store) -> dict[str, float]:
    split = store.shelf().actives.line("zero").split
    return {} if split is None else split.shares


def shadowed(store: Store) -> dict[str, float]:
    shadow = store.shelf().actives.line("zero").shadow
    return {} if shadow is None else {shadow.version: shadow.percent}


def plain(store: Store) -> dict[str, object]:
    found: dict[str, object] = json.loads((store.folder / "active.json").read_text(encoding="utf-8"))
    return found


def test_a_split_is_recorded_written_and_ended(store: Store, ledger: Ledger) -> None:
    before = store.fingerprint()
    divided = store.canary("sv", {"V1.0": 90, "v1.1": 10})
    assert (divided.active.full_name, divided.before.divided) == ("zero@v1.0", ())
    assert shares(store) == {"v1.0": 90, "v1.1": 10}
    assert store.fingerprint() != before
    entry = last(ledger)
    assert (entry.action, entry.subject) == ("canary", "zero")
    assert entry.details == {"now": {"shares": {"v1.0": 90, "v1.1": 10}}}
    digests = {held.version: held.recorded_digest for held in store.shelf().held}
    assert entry.inputs == {"adapters": (digests["v1.0"], digests["v1.1"])}
    store.canary("zero", {"v1.0": 70, "v1.1": 30})
    assert last(ledger).details["before"] == {"shares": {"v1.0": 90, "v1.1": 10}}
    settled = store.settle("zero", "enough", metrics={"errors": 3.0})
    assert settled.record is not None
    assert shares(store) == {}
    entry = last(ledger)
    assert (entry.action, entry.metrics, entry.details["reason"]) == ("settle", {"errors": 3.0}, "enough")
    assert store.settle("zero").record is None
    assert last(ledger) == entry, "nothing changed"


def test_a_shadow_beside_a_canary_and_in_its_place(store: Store, ledger: Ledger) -> None:
    store.canary("zero", {"v1.0": 90, "v1.1": 10})
    store.shadow("sv@v1.2", 5)
    assert (shares(store), shadowed(store)) == ({"v1.0": 90, "v1.1": 10}, {"v1.2": 5})
    assert (last(ledger).action, last(ledger).details["now"]["shadow"]) == ("shadow", {"v1.2": 5})
    store.canary("zero", {"v1.0": 98, "v1.2": 2})
    assert (shares(store), shadowed(store)) == ({"v1.0": 98, "v1.2": 2}, {})
    store.shadow("zero@v1.1", 100)
    store.settle("zero")
    assert (shares(store), shadowed(store)) == ({}, {})


@pytest.mark.parametrize("name", ["zero@v1.1", "zero@v1.2"])
def test_promoting_ends_what_was_divided(store: Store, ledger: Ledger, name: str) -> None:
    store.canary("zero", {"v1.0": 90, "v1.1": 10})
    store.shadow("zero@v1.2", 5)
    store.promote("zero@v1.0")
    assert (shares(store), shadowed(store)) == ({"v1.0": 90, "v1.1": 10}, {"v1.2": 5}), "active already"
    store.promote(name)
    assert (shares(store), shadowed(store)) == ({}, {})
    assert last(ledger).details["ended"] == {"shares": {"v1.0": 90, "v1.1": 10}, "shadow": {"v1.2": 5}}
    assert plain(store)["format"] == 1, "what nothing divides is read by every OneSeek"


def test_rolling_back_ends_what_was_divided(store: Store, ledger: Ledger) -> None:
    store.promote("zero@v1.1")
    store.canary("zero", {"v1.1": 50, "v1.2": 50})
    store.rollback("zero")
    assert shares(store) == {}
    assert last(ledger).details["ended"] == {"shares": {"v1.1": 50, "v1.2": 50}}


def test_a_version_with_a_share_is_not_retired(store: Store) -> None:
    store.canary("zero", {"v1.0": 90, "v1.1": 10})
    store.shadow("zero@v1.2", 5)
    for name in ("zero@v1.1", "zero@v1.2"):
        for delete in (False, True):
            with pytest.raises(StoreError, match=r"has a share of the requests .* settle zero first"):
                store.retire(name, delete=delete)
    store.settle("zero")
    store.retire("zero@v1.1")
    with pytest.raises(StoreError, match=r"zero@v1\.1 is retired: promote it, or name one that is served"):
        store.canary("zero", {"v1.0": 90, "v1.1": 10})
    with pytest.raises(StoreError, match=r"zero@v1\.1 is retired"):
        store.shadow("zero@v1.1", 10)


def test_what_does_not_fit_changes_nothing(store: Store, ledger: Ledger) -> None:
    count = len(list(ledger.entries()))
    with pytest.raises(StoreError, match="add up to 110"):
        store.canary("zero", {"v1.0": 90, "v1.1": 20})
    with pytest.raises(StoreError, match="name a version twice"):
        store.canary("zero", {"v1.0": 90, "v1.1": 5, "V1.1": 5})
    with pytest.raises(StoreError, match="names a version, and canary takes an alias"):
        store.canary("zero@v1.0", {"v1.0": 90, "v1.1": 10})
    with pytest.raises(UnknownAdapterError, match=r"Did you mean zero@v1\.\d"):
        store.canary("zero", {"v1.0": 90, "v1.9": 10})
    with pytest.raises(UnknownAdapterError):
        store.settle("one")
    with pytest.raises(StoreError, match="share is 101: give a percentage above 0 and at most 100"):
        store.shadow("zero@v1.1", 101)
    with pytest.raises(StoreError, match=r"zero@v1\.0 answers requests already"):
        store.shadow("zero@v1.0", 10)
    with pytest.raises(StoreError, match="names no version"):
        store.shadow("zero", 10)
    assert len(list(ledger.entries())) == count
    assert (shares(store), shadowed(store)) == ({}, {})


def test_what_the_ledger_cannot_take_is_not_visible(store: Store, ledger: Ledger) -> None:
    (ledger.folder / "key.pem").unlink()
    with pytest.raises(LedgerError):
        store.canary("zero", {"v1.0": 90, "v1.1": 10})
    assert shares(store) == {}


def test_only_what_was_set_then_is_settled(store: Store) -> None:
    first = store.canary("zero", {"v1.0": 90, "v1.1": 10}).after.split
    assert first is not None
    second = store.canary("zero", {"v1.0": 80, "v1.1": 20}).after.split
    shadow = store.shadow("zero@v1.2", 5).after.shadow
    assert second is not None
    assert shadow is not None
    assert store.settle("zero", since=first.since).record is None
    assert shares(store) == {"v1.0": 80, "v1.1": 20}
    store.settle("zero", since=second.since)
    assert (shares(store), shadowed(store)) == ({}, {"v1.2": 5})
    store.settle("zero", since=shadow.since)
    assert shadowed(store) == {}


def test_a_higher_version_does_not_move_what_was_active_by_its_number(
    store: Store, shape: ModelShape, make_adapter: Make
) -> None:
    (store.folder / "active.json").unlink(missing_ok=True)
    store.canary("zero", {"v1.2": 90, "v1.1": 10})
    folder = make_adapter("zero-v1.3", tensors={TENSOR: np.full((32, 4), 9, np.float32)})
    store.add(folder, base=Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape), alias="zero")
    assert store.shelf().find("zero").full_name == "zero@v1.2"
    assert shares(store) == {"v1.2": 90, "v1.1": 10}


def test_files_of_before_and_of_after_this_one(store: Store) -> None:
    store.promote("zero@v1.1")
    assert plain(store)["format"] == 1
    store.canary("zero", {"v1.1": 90, "v1.2": 10})
    written = plain(store)
    assert written["format"] == 2, "a OneSeek that divides nothing refuses it"
    path = store.folder / "active.json"
    path.write_text(json.dumps({**written, "format": 3}), encoding="utf-8")
    with pytest.raises(ActiveFileError, match="format = 3"):
        Actives.read(store.folder)


@pytest.mark.parametrize(
    "line",
    [
        {"split": {"active": "v1", "canaries": {"v1": 10}, "since": ""}},
        {"split": {"active": "v1", "canaries": {}, "since": ""}},
        {"split": {"active": "v1", "canaries": {"v2": 100}, "since": ""}},
        {"split": {"active": "v1", "canaries": {"v2": "10"}, "since": ""}},
        {"split": {"active": "v1", "canaries": {"v2": 10}}},
        {"split": ["v1"]},
        {"shadow": {"version": "newest", "percent": 10, "since": ""}},
        {"shadow": {"version": "v2", "percent": 0, "since": ""}},
    ],
)
def test_a_damaged_division_is_refused(store: Store, line: dict[str, object]) -> None:
    aliases = {"zero": {"history": ["v1"], "retired": [], **line}}
    text = json.dumps({"format": 2, "aliases": aliases})
    (store.folder / "active.json").write_text(text, encoding="utf-8")
    with pytest.raises(ActiveFileError, match=r"aliases\.zero"):
        Actives.read(store.folder)
