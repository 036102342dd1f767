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
from adapters.registry.pointers import AliasPointers, PointersError
from adapters.registry.registry import Base, Registry, RegistryError

Make = Callable[..., Path]
TENSOR = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "home" / "ledger")


@pytest.fixture
def registry(tmp_path: Path, ledger: Ledger, shape: ModelShape, make_adapter: Make) -> Registry:
    """A registry with v1.0, which is active, v1.1 and v1.2 of `zero`, which is Swedish."""
    registry = Registry(tmp_path / "home", ledger)
    base = Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape)
    for number in range(3):
        tensors = {TENSOR: np.full((32, 4), number + 1, np.float32)}
        folder = make_adapter(f"zero-v1.{number}", tensors=tensors)
        registry.add(folder, base=base, alias="zero", version=f"v1.{number}", language="sv")
    return registry


def last(ledger: Ledger) -> Record:
    return list(ledger.entries())[-1].record


def shares(registry: Registry) -> dict[str, float]:
    split = registry.listing().pointers.state("zero").split
    return {} if split is None else split.shares


def shadowed(registry: Registry) -> dict[str, float]:
    shadow = registry.listing().pointers.state("zero").shadow
    return {} if shadow is None else {shadow.version: shadow.percent}


def plain(registry: Registry) -> dict[str, object]:
    found: dict[str, object] = json.loads((registry.folder / "active.json").read_text(encoding="utf-8"))
    return found


def test_a_split_is_recorded_written_and_ended(registry: Registry, ledger: Ledger) -> None:
    before = registry.fingerprint()
    divided = registry.canary("sv", {"V1.0": 90, "v1.1": 10})
    assert (divided.active.full_name, divided.before.divided_versions) == ("zero@v1.0", ())
    assert shares(registry) == {"v1.0": 90, "v1.1": 10}
    assert registry.fingerprint() != before
    entry = last(ledger)
    assert (entry.action, entry.subject) == ("canary", "zero")
    assert entry.details == {"now": {"shares": {"v1.0": 90, "v1.1": 10}}}
    digests = {entry.version: entry.recorded_digest for entry in registry.listing().entries}
    assert entry.inputs == {"adapters": (digests["v1.0"], digests["v1.1"])}
    registry.canary("zero", {"v1.0": 70, "v1.1": 30})
    assert last(ledger).details["before"] == {"shares": {"v1.0": 90, "v1.1": 10}}
    settled = registry.settle("zero", "enough", metrics={"errors": 3.0})
    assert settled.record is not None
    assert shares(registry) == {}
    entry = last(ledger)
    assert (entry.action, entry.metrics, entry.details["reason"]) == ("settle", {"errors": 3.0}, "enough")
    assert registry.settle("zero").record is None
    assert last(ledger) == entry, "nothing changed"


def test_a_shadow_beside_a_canary_and_in_its_place(registry: Registry, ledger: Ledger) -> None:
    registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    registry.shadow("sv@v1.2", 5)
    assert (shares(registry), shadowed(registry)) == ({"v1.0": 90, "v1.1": 10}, {"v1.2": 5})
    assert (last(ledger).action, last(ledger).details["now"]["shadow"]) == ("shadow", {"v1.2": 5})
    registry.canary("zero", {"v1.0": 98, "v1.2": 2})
    assert (shares(registry), shadowed(registry)) == ({"v1.0": 98, "v1.2": 2}, {})
    registry.shadow("zero@v1.1", 100)
    registry.settle("zero")
    assert (shares(registry), shadowed(registry)) == ({}, {})


@pytest.mark.parametrize("name", ["zero@v1.1", "zero@v1.2"])
def test_promoting_ends_what_was_divided(registry: Registry, ledger: Ledger, name: str) -> None:
    registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    registry.shadow("zero@v1.2", 5)
    registry.promote("zero@v1.0")
    assert (shares(registry), shadowed(registry)) == ({"v1.0": 90, "v1.1": 10}, {"v1.2": 5}), "active already"
    registry.promote(name)
    assert (shares(registry), shadowed(registry)) == ({}, {})
    assert last(ledger).details["ended"] == {"shares": {"v1.0": 90, "v1.1": 10}, "shadow": {"v1.2": 5}}
    assert plain(registry)["format"] == 1, "what nothing divides is read by every OneSeek"


def test_rolling_back_ends_what_was_divided(registry: Registry, ledger: Ledger) -> None:
    registry.promote("zero@v1.1")
    registry.canary("zero", {"v1.1": 50, "v1.2": 50})
    registry.rollback("zero")
    assert shares(registry) == {}
    assert last(ledger).details["ended"] == {"shares": {"v1.1": 50, "v1.2": 50}}


def test_a_version_with_a_share_is_not_retired(registry: Registry) -> None:
    registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    registry.shadow("zero@v1.2", 5)
    for name in ("zero@v1.1", "zero@v1.2"):
        for delete in (False, True):
            with pytest.raises(RegistryError, match=rf"^{name} .*\boneseek adapters settle zero\b"):
                registry.retire(name, delete=delete)
    registry.settle("zero")
    registry.retire("zero@v1.1")
    with pytest.raises(RegistryError, match=r"^zero@v1\.1 .*\bpromote\b"):
        registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    with pytest.raises(RegistryError, match=r"^zero@v1\.1 .*\bpromote\b"):
        registry.shadow("zero@v1.1", 10)


def test_what_does_not_fit_changes_nothing(registry: Registry, ledger: Ledger) -> None:
    count = len(list(ledger.entries()))
    with pytest.raises(RegistryError, match=r"\b110\b.*\b100\b"):
        registry.canary("zero", {"v1.0": 90, "v1.1": 20})
    with pytest.raises(RegistryError, match=r"v1\.1, V1\.1"):
        registry.canary("zero", {"v1.0": 90, "v1.1": 5, "V1.1": 5})
    with pytest.raises(RegistryError, match=r"zero@v1\.0"):
        registry.canary("zero@v1.0", {"v1.0": 90, "v1.1": 10})
    with pytest.raises(UnknownAdapterError) as unknown:
        registry.canary("zero", {"v1.0": 90, "v1.9": 10})
    assert unknown.value.name == "zero@v1.9"
    assert unknown.value.hints[0].startswith("zero@v1.")
    with pytest.raises(UnknownAdapterError):
        registry.settle("one")
    with pytest.raises(RegistryError, match=r"\b101\b.*\b100\b"):
        registry.shadow("zero@v1.1", 101)
    with pytest.raises(RegistryError, match=r"^zero@v1\.0 .*\bshadow\b"):
        registry.shadow("zero@v1.0", 10)
    with pytest.raises(RegistryError, match="zero@VERSION"):
        registry.shadow("zero", 10)
    assert len(list(ledger.entries())) == count
    assert (shares(registry), shadowed(registry)) == ({}, {})


def test_what_the_ledger_cannot_take_is_not_visible(registry: Registry, ledger: Ledger) -> None:
    (ledger.folder / "key.pem").unlink()
    with pytest.raises(LedgerError):
        registry.canary("zero", {"v1.0": 90, "v1.1": 10})
    assert shares(registry) == {}


def test_only_what_was_set_then_is_settled(registry: Registry) -> None:
    first = registry.canary("zero", {"v1.0": 90, "v1.1": 10}).after.split
    assert first is not None
    second = registry.canary("zero", {"v1.0": 80, "v1.1": 20}).after.split
    shadow = registry.shadow("zero@v1.2", 5).after.shadow
    assert second is not None
    assert shadow is not None
    assert registry.settle("zero", since=first.since).record is None
    assert shares(registry) == {"v1.0": 80, "v1.1": 20}
    registry.settle("zero", since=second.since)
    assert (shares(registry), shadowed(registry)) == ({}, {"v1.2": 5})
    registry.settle("zero", since=shadow.since)
    assert shadowed(registry) == {}


def test_a_higher_version_does_not_move_what_was_active_by_its_number(
    registry: Registry, shape: ModelShape, make_adapter: Make
) -> None:
    (registry.folder / "active.json").unlink(missing_ok=True)
    registry = Registry(registry.folder.parent)  # without a ledger, as one that was filled by hand
    registry.canary("zero", {"v1.2": 90, "v1.1": 10})
    folder = make_adapter("zero-v1.3", tensors={TENSOR: np.full((32, 4), 9, np.float32)})
    registry.add(folder, base=Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape), alias="zero")
    assert registry.listing().find("zero").full_name == "zero@v1.2"
    assert shares(registry) == {"v1.2": 90, "v1.1": 10}


def test_files_of_before_and_of_after_this_one(registry: Registry) -> None:
    registry.promote("zero@v1.1")
    assert plain(registry)["format"] == 1
    registry.canary("zero", {"v1.1": 90, "v1.2": 10})
    written = plain(registry)
    assert written["format"] == 2, "a OneSeek that divides nothing refuses it"
    path = registry.folder / "active.json"
    path.write_text(json.dumps({**written, "format": 4}), encoding="utf-8")
    with pytest.raises(PointersError, match="format = 4"):
        AliasPointers.read(registry.folder)


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
def test_a_damaged_division_is_refused(registry: Registry, line: dict[str, object]) -> None:
    aliases = {"zero": {"history": ["v1"], "retired": [], **line}}
    text = json.dumps({"format": 2, "aliases": aliases})
    (registry.folder / "active.json").write_text(text, encoding="utf-8")
    with pytest.raises(PointersError, match=r"aliases\.zero"):
        AliasPointers.read(registry.folder)
