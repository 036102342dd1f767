"""Which version of an alias is active: promoted, rolled back, retired or deleted."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.bases import find_base
from adapters.errors import UnknownAdapterError
from adapters.ledger import Ledger
from adapters.registry.discovery.finder import find_adapters
from adapters.registry.pointers import AliasPointers, PointersError
from adapters.registry.registry import Base, Registry, RegistryError
from tests.adapters.registry.registries import Make, active, records, scaled


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
