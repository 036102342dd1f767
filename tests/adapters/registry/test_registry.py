"""The registry on disk: what it takes, what it refuses, and which version is active."""

from __future__ import annotations

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.bases import find_base
from adapters.errors import AdapterError, LedgerError, UnknownAdapterError
from adapters.ledger import Ledger, Record
from adapters.ledger.origin import origin_file
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import read_fields, read_manifest
from adapters.lora.weights import ModelShape
from adapters.registry.discovery.finder import find_adapters
from adapters.registry.pointers import AliasPointers, PointersError
from adapters.registry.registry import Base, Registry, RegistryError
from adapters.registry.verify import verify_version

Make = Callable[..., Path]
NAME = "base_model.model.model.layers.0.self_attn.q_proj"
OTHER = "sha256:" + "1" * 64


@pytest.fixture
def base(shape: ModelShape) -> Base:
    return Base(name="tiny", digest="sha256:" + "0" * 64, shape=shape)


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    return Ledger.open(tmp_path / "home" / "ledger")


@pytest.fixture
def registry(tmp_path: Path, ledger: Ledger) -> Registry:
    return Registry(tmp_path / "home", ledger)


def records(ledger: Ledger) -> list[Record]:
    """Every change that the ledger holds, oldest first."""
    return [entry.record for entry in ledger.entries()]


def scaled(factor: float) -> dict[str, Any]:
    """One tensor that makes an adapter another one."""
    return {f"{NAME}.lora_B.weight": np.full((32, 4), factor, np.float32)}


def everything(folder: Path) -> dict[str, bytes]:
    """Every file under `folder` but the lock."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.fixture
def zero(registry: Registry, base: Base, make_adapter: Make) -> Registry:
    """A registry with three versions of `zero`, the first of them active."""
    for number in range(3):
        folder = make_adapter(f"zero-v1.{number}", tensors=scaled(number + 1))
        registry.add(folder, base=base)
    return registry


def active(registry: Registry, alias: str = "zero") -> str:
    found = registry.listing().active(alias)
    assert found is not None
    return found.version


def test_a_version_is_what_was_added_with_what_is_known_of_it(
    registry: Registry, base: Base, make_adapter: Make, ledger: Ledger
) -> None:
    noted = {"metrics": {"loss": 4.48}, "dataset_digest": OTHER, "parents": [OTHER], "about": {"by": "me"}}
    folder = make_adapter("zero-v1.1-SV", manifest=noted)
    added = registry.add(folder, base=base)
    assert (added.new, added.active, added.adapter.full_name) == (True, True, "zero-sv@v1.1")
    placed = registry.folder / "zero-sv" / "v1.1"
    assert added.adapter.path == placed
    assert adapter_digest(placed) == adapter_digest(folder)
    fields = read_fields(placed)
    assert fields.pop("created").endswith("Z")
    assert fields == {
        **noted,
        "alias": "zero-sv",
        "version": "v1.1",
        "language": "sv",
        "base": "tiny",
        "base_digest": base.digest,
        "digest": adapter_digest(folder),
        "rank": 4,
        "alpha": 8,
        "targets": ["q_proj", "v_proj"],
    }
    _, front, text = (placed / "README.md").read_text(encoding="utf-8").split("---\n", 2)
    assert yaml.safe_load(front) == {
        "base_model": "tiny",
        "library_name": "peft",
        "pipeline_tag": "text-generation",
        "language": ["sv"],
        "tags": ["base_model:adapter:tiny", "lora", "oneseek", "transformers"],
    }
    assert "# zero-sv v1.1" in text
    assert OTHER in text
    (change,) = records(ledger)
    assert (change.action, change.subject) == ("add", "zero-sv@v1.1")
    assert dict(change.inputs) == {"base": base.digest, "data": OTHER, "parents": (OTHER,)}
    assert (change.outputs, change.metrics) == ({"adapter": adapter_digest(folder)}, {"loss": 4.48})


def test_a_card_that_says_something_is_kept(registry: Registry, base: Base, make_adapter: Make) -> None:
    folder = make_adapter("zero-v1")
    card = "---\nlibrary_name: peft\nbase_model: x/y\n---\n# Mine\n"
    (folder / "README.md").write_text(card, encoding="utf-8")
    assert (registry.add(folder, base=base).adapter.path / "README.md").read_text(encoding="utf-8") == card


def test_adding_again_changes_nothing(zero: Registry, base: Base, make_adapter: Make, ledger: Ledger) -> None:
    before = everything(zero.folder)
    again = make_adapter("again/zero-v1.1", tensors=scaled(2))
    added = zero.add(again, base=base)
    assert (added.new, added.active, added.adapter.full_name) == (False, False, "zero@v1.1")
    assert everything(zero.folder) == before
    assert [change.action for change in records(ledger)] == ["add"] * 3


@pytest.mark.parametrize(
    ("passed", "change", "said"),
    [
        ({"version": "v1.1"}, scaled(9), r"^zero@v1\.1 .*--version v1\.3\b"),
        ({"version": "V1.1", "alias": "ZERO"}, scaled(9), r"^zero@v1\.1 .*--version v1\.3\b"),
        ({"version": "v1.1", "language": "sv"}, scaled(2), r"^zero@v1\.1 .*\bNone\b.*\bsv\b"),
        ({}, {f"{NAME}.lora_B.weight": np.full((32, 4), np.nan, np.float32)}, r"lora_B\.weight .*\bNaN\b"),
        ({}, {f"{NAME}.lora_A.weight": np.ones((4, 31), np.float32)}, r"\[4, 31\]"),
        ({}, {f"{NAME}.lora_A.weight": None, f"{NAME}.lora_B.weight": None}, r"\btarget_modules\b.*_proj\b"),
        ({}, {"surprise": np.ones(1, np.float32)}, "surprise"),
        ({"alias": "a/b"}, {}, "'a/b'"),
    ],
)
def test_what_is_refused_changes_nothing(
    passed: dict[str, Any],
    change: dict[str, Any],
    said: str,
    zero: Registry,
    base: Base,
    make_adapter: Make,
    ledger: Ledger,
) -> None:
    before, count = everything(zero.folder), len(records(ledger))
    with pytest.raises(ValueError, match=said):
        zero.add(make_adapter("zero", tensors=change), base=base, **passed)
    assert everything(zero.folder) == before
    assert len(records(ledger)) == count


def test_no_effect_another_base_and_a_high_rank_are_refused(
    registry: Registry, base: Base, make_adapter: Make
) -> None:
    with pytest.raises(AdapterError, match=rf"\btiny\b.*{base.digest}"):
        registry.add(make_adapter("a-v1", manifest={"base_digest": OTHER}), base=base)
    with pytest.raises(AdapterError, match="lora_alpha"):
        registry.add(make_adapter("b-v1", config={"lora_alpha": 0}), base=base)
    with pytest.raises(AdapterError, match=r"\br = 257:.*\b256\b"):
        registry.add(make_adapter("c-v1", config={"r": 257}), base=base)
    assert registry.listing().entries == ()


def test_a_ledger_that_refuses_stops_every_change(
    zero: Registry, base: Base, make_adapter: Make, ledger: Ledger
) -> None:
    zero.promote("zero@v1.1")
    before = everything(zero.folder)
    (ledger.folder / "ledger.jsonl").write_text("tampered with\n", encoding="utf-8")
    for change in (
        lambda: zero.add(make_adapter("zero-v9", tensors=scaled(9)), base=base),
        lambda: zero.promote("zero@v1.2"),
        lambda: zero.rollback("zero"),
        lambda: zero.retire("zero@v1.2", delete=True),
    ):
        with pytest.raises(LedgerError):
            change()
        assert everything(zero.folder) == before


def test_what_a_ledger_does_not_know_is_recorded_when_it_is_added_again(
    zero: Registry, base: Base, ledger: Ledger
) -> None:
    shutil.rmtree(ledger.folder)
    entry = zero.listing().find("zero@v1.1")
    with pytest.raises(LedgerError, match="ledger repair --new"):
        zero.add(entry.folder, base=base)
    origin_file(ledger.folder).unlink()  # as in a home of an earlier release
    with pytest.raises(LedgerError, match="ledger repair --new"):
        zero.add(entry.folder, base=base)
    assert not ledger.begun
    ledger.begin_anew()
    assert not zero.add(entry.folder, base=base).new
    assert not zero.add(entry.folder, base=base).new
    assert [record.subject for record in records(ledger)] == ["ledger", "zero@v1.1"]
    assert ledger.knows(entry.read().digest)


def test_the_next_free_version(registry: Registry, base: Base, make_adapter: Make) -> None:
    found = [
        registry.add(make_adapter(f"{place}/zero", tensors=scaled(number)), base=base).adapter.version
        for place, number in enumerate((1, 2, 3, 2))
    ]
    assert found == ["v1.0", "v1.1", "v1.2", "v1.1"], "the same contents are the version that holds them"
    registry.add(make_adapter("zero-v1.10", tensors=scaled(10)), base=base)
    assert registry.add(make_adapter("5/zero", tensors=scaled(5)), base=base).adapter.version == "v1.11"


def test_promote_and_rollback_walk_back(zero: Registry, ledger: Ledger) -> None:
    assert active(zero) == "v1.0"
    for version in ("v1.2", "v1.1", "V1.1", "v1.2"):
        zero.promote(f"Zero@{version}")
    assert active(zero) == "v1.2"
    assert [zero.rollback("zero").after.version for _ in range(3)] == ["v1.1", "v1.2", "v1.0"]
    with pytest.raises(RegistryError, match=r"\bzero\b.*\bv1\.0\b"):
        zero.rollback("zero")
    moves = [(change.action, change.subject, change.details.get("before")) for change in records(ledger)[3:]]
    assert moves[0] == ("promote", "zero@v1.2", "zero@v1.0")
    assert moves[-1] == ("rollback", "zero@v1.0", "zero@v1.2")
    assert len(moves) == 6, "promoting what is active is no change"


def test_a_later_version_waits_to_be_promoted_also_in_a_registry_filled_by_hand(
    registry: Registry, base: Base, make_adapter: Make
) -> None:
    shutil.copytree(make_adapter("x", tensors=scaled(7)), registry.folder / "zero" / "v1.0")
    added = registry.add(make_adapter("zero-v2"), base=base)
    assert (added.active, active(registry)) == (False, "v1.0")


def test_retire(zero: Registry, tmp_path: Path) -> None:
    with pytest.raises(RegistryError, match=r"^zero@v1\.0 .*\bv1\.1, v1\.2\b"):
        zero.retire("zero@v1.0")
    zero.promote("zero@v1.1")
    zero.promote("zero@v1.2")
    zero.retire("zero@v1.1")
    assert zero.listing().find("zero@v1.1").folder.is_dir()
    assert zero.rollback("zero").after.version == "v1.0", "what is retired is passed over"
    zero.retire("zero@v1.2", delete=True)
    assert [entry.version for entry in zero.listing().entries] == ["v1.0", "v1.1"]
    zero.promote("zero@v1.1")
    assert active(zero) == "v1.1", "promoting brings it back"
    zero.retire("zero@v1.0", delete=True)
    zero.retire("zero@v1.1")
    assert zero.listing().active("zero") is None
    with pytest.raises(RegistryError, match="oneseek adapters promote zero@VERSION"):
        zero.listing().find("zero")


def test_adding_a_retired_version_serves_it_again_if_its_alias_stands_for_nothing(
    registry: Registry, ledger: Ledger, base: Base, make_adapter: Make
) -> None:
    first, second = (make_adapter(f"zero-v1.{number}", tensors=scaled(number + 1)) for number in range(2))
    for folder in (first, second):
        registry.add(folder, base=base)
    registry.retire("zero@v1.1")
    again = registry.add(second, base=base)
    assert (again.new, again.active, again.stands) == (False, False, "zero@v1.0"), "it waits for promote"
    registry.retire("zero@v1.0")
    assert registry.listing().active("zero") is None
    again = registry.add(second, base=base)
    assert (again.new, again.active, again.stands) == (False, True, "zero@v1.1")
    assert active(registry) == "v1.1"
    assert records(ledger)[-1].action == "promote"
    (registry.folder / "active.json").unlink()
    registry.repair()
    assert active(registry) == "v1.1"


def test_a_deleted_version_leaves_its_name_free(zero: Registry, base: Base, make_adapter: Make) -> None:
    zero.retire("zero@v1.1", delete=True)
    assert zero.add(make_adapter("9/zero-v1.1", tensors=scaled(9)), base=base).new
    assert [entry.version for entry in zero.listing().served_versions("zero")] == ["v1.0", "v1.1", "v1.2"]


def test_names_that_lead_nowhere(zero: Registry) -> None:
    with pytest.raises(UnknownAdapterError, match=r" zero@v1\.1\b") as version:
        zero.promote("zero@v1.11")
    assert (version.value.name, version.value.hints[0]) == ("zero@v1.11", "zero@v1.1")
    with pytest.raises(UnknownAdapterError, match=r" zero\b") as alias:
        zero.rollback("zeros")
    assert (alias.value.name, alias.value.hints) == ("zeros", ("zero",))
    with pytest.raises(RegistryError, match="promote zero@VERSION"):
        zero.promote("zero")
    with pytest.raises(RegistryError, match=r"zero@v1\.0"):
        zero.rollback("zero@v1.0")


def test_a_server_finds_what_is_not_retired(
    zero: Registry, tmp_path: Path, make_base: Make, make_adapter: Make
) -> None:
    zero.promote("zero@v1.1")
    zero.retire("zero@v1.0")
    found = find_adapters(
        tmp_path, zero.folder.parent, find_base(tmp_path, make_base(tmp_path / "b")), shipped=tmp_path
    )
    assert [adapter.full_name for adapter in found.adapters] == ["zero@v1.1", "zero@v1.2"]


def test_verify_finds_every_change(zero: Registry, base: Base) -> None:
    assert [verify_version(entry, base).problem for entry in zero.listing().entries] == [None] * 3
    first, second, third = (entry.folder for entry in zero.listing().entries)
    config = json.loads((first / "adapter_config.json").read_text(encoding="utf-8"))
    (first / "adapter_config.json").write_text(json.dumps({**config, "lora_alpha": 9}), encoding="utf-8")
    weights = bytearray((second / "adapter_model.safetensors").read_bytes())
    weights[-1] ^= 1
    (second / "adapter_model.safetensors").write_bytes(weights)
    (third / "oneseek.json").write_text("{", encoding="utf-8")
    problems = [verify_version(entry, base).problem for entry in zero.listing().entries]
    assert all("oneseek.json: digest = 'sha256:" in str(problem) for problem in problems[:2])
    assert str(third / "oneseek.json") in str(problems[2])
    assert "digest" not in str(problems[2])
    with pytest.raises(AdapterError) as caught:
        zero.promote("zero@v1.1")
    assert caught.value.field == "digest"


def test_the_fingerprint_follows_every_change(zero: Registry, base: Base, make_adapter: Make) -> None:
    seen = [zero.fingerprint()]
    for change in (
        lambda: zero.add(make_adapter("zero-v3", tensors=scaled(3.5)), base=base),
        lambda: zero.promote("zero@v3"),
        lambda: zero.rollback("zero"),
        lambda: zero.retire("zero@v3"),
        lambda: zero.retire("zero@v3", delete=True),
    ):
        change()
        seen.append(zero.fingerprint())
        assert zero.fingerprint() == seen[-1]
    assert len(set(seen)) == len(seen)


@pytest.mark.parametrize(
    "text",
    [
        "{",
        '{"format": 4, "aliases": {}}',
        '{"format": 1, "aliases": []}',
        '{"format": 1, "aliases": {"zero": {"history": ["latest"], "retired": []}}}',
        '{"format": 1, "aliases": {"zero": ["v1"]}}',
    ],
)
def test_a_damaged_state_is_refused_and_kept(text: str, zero: Registry) -> None:
    path = zero.folder / "active.json"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(PointersError):
        zero.promote("zero@v1.1")
    assert path.read_text(encoding="utf-8") == text


def test_the_state_reads_back(tmp_path: Path) -> None:
    state = AliasPointers().promote("Zero", "V1.0").promote("zero", "v1.1-SV").drop("zero", "v2", keep=True)
    state.write(tmp_path)
    assert AliasPointers.read(tmp_path) == state
    assert (state.active("ZERO"), state.is_retired("zero", "V2")) == ("v1.1-sv", True)


def test_a_version_reads_as_a_manifest(zero: Registry) -> None:
    entry = zero.listing().find("zero@v1.1")
    assert read_manifest(entry.folder) == entry.read()


Step = tuple[str, int]
STEPS = st.lists(st.tuples(st.sampled_from(["promote", "rollback", "retire"]), st.integers(0, 2)), max_size=8)


@given(STEPS)
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_order_of_changes_is_as_a_list_of_what_was_active(zero: Registry, steps: list[Step]) -> None:
    (zero.folder / "active.json").unlink()  # so that the highest is active
    zero = Registry(zero.folder.parent)  # without a ledger, which would know better
    zero.promote("zero@v1.0")
    history, retired = ["v1.2", "v1.0"], set[str]()
    for action, number in steps:
        version = f"v1.{number}"
        before = active(zero)
        assert before == history[-1]
        try:
            if action == "promote":
                zero.promote(f"zero@{version}")
                retired.discard(version)
                history += [version] if version != history[-1] else []
            elif action == "rollback":
                after = zero.rollback("zero").after.version
                assert after == history.pop(-2)
                history.pop()
                history.append(after)
            else:
                zero.retire(f"zero@{version}")
                retired.add(version)
                if len(retired) == 3:
                    assert zero.listing().active("zero") is None, "the last one may go too"
                    return
                assert version != before
                history = [v for v, _ in itertools.groupby(v for v in history if v != version)]
        except RegistryError:
            assert (action, version) == ("retire", before) or (action == "rollback" and len(history) == 1)
        assert active(zero) == history[-1]
        assert {h.version for h in zero.listing().entries if zero.listing().is_retired(h)} == retired
