"""Many adapters at once: what is refused stops none of the others, and a dry run changes nothing."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from safetensors.numpy import load_file, save_file

from adapters.errors import LedgerError, RegistryError
from adapters.ledger import Ledger
from adapters.lora.manifest import read_fields
from adapters.pth import bulk, conversion
from adapters.pth.bulk import BulkImport, ImportOutcome, NamesGiven
from adapters.pth.folder import find_candidates
from adapters.registry.registry import Base, Registry

Make = Callable[..., Path]


@pytest.fixture
def place(make_adapter: Make, tmp_path: Path) -> Path:
    """Three versions of two aliases that can be served, and three folders that cannot."""
    for name, rank in (("zero-v1.1", 4), ("zero-v1.2", 2), ("zero-v1.1-SV", 4)):
        make_adapter(f"place/{name}", rank=rank)
    make_adapter("place/bad-v1", config={"use_dora": True})
    make_adapter("place/base-v1")
    (tmp_path / "place" / "run" / "checkpoint-5").mkdir(parents=True)
    (tmp_path / "place" / "run" / "checkpoint-5" / "adapter_config.json").write_text("{}", encoding="utf-8")
    return tmp_path / "place"


def run(place: Path, base: Base, *, dry_run: bool = False) -> list[ImportOutcome]:
    home = place.parent / "home"
    registry = Registry(home, Ledger.open(home / "ledger"))
    return list(BulkImport(registry=registry, base=base, dry_run=dry_run).run(find_candidates([place])))


def told(outcomes: list[ImportOutcome]) -> dict[str, tuple[bool, bool]]:
    found = [one.result.added for one in outcomes if one.result is not None]
    return {added.adapter.full_name: (added.new, added.active) for added in found}


def test_the_others_are_imported_and_a_second_run_changes_nothing(place: Path, base: Base) -> None:
    planned = run(place, base, dry_run=True)
    assert not (place.parent / "home" / "registry").exists()
    done = run(place, base)
    assert told(planned) == told(done)
    assert told(done) == {
        "zero@v1.1": (True, True),
        "zero@v1.2": (True, False),
        "zero-sv@v1.1": (True, True),
    }
    for outcomes in (planned, done):
        problems = {one.candidate.path.name: one.problem or "" for one in outcomes if one.problem is not None}
        assert problems.keys() == {"bad-v1", "base-v1", "run"}
        assert "use_dora" in problems["bad-v1"]
        assert "reserved" in problems["base-v1"]
        assert "checkpoint-5" in problems["run"]
    registry = place.parent / "home" / "registry"
    kept = sorted(path.relative_to(registry).as_posix() for path in registry.glob("*/*"))
    assert kept == ["zero-sv/v1.1", "zero/v1.1", "zero/v1.2"]
    assert read_fields(registry / "zero" / "v1.1")["origin"]["file"] == "zero-v1.1"
    again = told(run(place, base))
    assert again == {"zero@v1.1": (False, True), "zero@v1.2": (False, False), "zero-sv@v1.1": (False, True)}
    entries = [one.record for one in Ledger.open(place.parent / "home" / "ledger").entries()]
    assert [record.action for record in entries] == ["import"] * 3


def test_two_that_claim_one_version_are_told_apart_also_in_a_dry_run(
    make_adapter: Make, base: Base, tmp_path: Path
) -> None:
    for folder, rank in (("one", 4), ("two", 4), ("three", 2)):
        make_adapter(f"place/{folder}", rank=rank, manifest={"alias": "zero", "version": "v1"})
    for dry_run in (True, False):
        found = run(tmp_path / "place", base, dry_run=dry_run)
        assert [one.result.added.new if one.result else None for one in found] == [True, None, False]
        assert re.match(r"zero@v1\b.*--version\b", found[1].problem or "")


def test_versions_that_nothing_tells_are_the_next_free_ones(
    make_adapter: Make, base: Base, tmp_path: Path
) -> None:
    for folder, rank in (("one", 4), ("two", 2)):
        make_adapter(f"place/{folder}", rank=rank, manifest={"alias": "zero"})
    for dry_run in (True, False):
        assert list(told(run(tmp_path / "place", base, dry_run=dry_run))) == ["zero@v1.0", "zero@v1.1"]


def test_what_is_wrong_with_all_of_them_ends_the_run(place: Path, base: Base) -> None:
    done = run(place, base)
    assert len(told(done)) == 3
    ledger = place.parent / "home" / "ledger" / "ledger.jsonl"
    ledger.write_text(ledger.read_text("utf-8").replace("zero", "nil", 1), encoding="utf-8")
    shutil.copytree(place / "zero-v1.2", place / "zero-v1.3")
    with pytest.raises(LedgerError):
        run(place, base)


def test_without_torch_nothing_is_begun(place: Path, base: Base, monkeypatch: pytest.MonkeyPatch) -> None:
    (place / "old-v1.pth").write_bytes(b"")
    monkeypatch.setattr(bulk, "torch_is_installed", lambda: False)
    with pytest.raises(RegistryError, match="torch"):
        run(place, base)
    assert not (place.parent / "home" / "registry").exists()


def test_a_language_is_asked_for_each(make_adapter: Make, base: Base, tmp_path: Path) -> None:
    make_adapter("place/a-v1")
    registry = Registry(tmp_path / "home")
    given = NamesGiven(language=lambda candidate: "fi" if candidate.path.name == "a-v1" else None)
    (found,) = BulkImport(registry=registry, base=base, given=given).run(
        find_candidates([tmp_path / "place"])
    )
    assert found.result is not None
    assert found.result.added.adapter.language == "fi"


def test_a_plain_safetensors_file_is_converted_and_known_again(
    make_adapter: Make, base: Base, tmp_path: Path
) -> None:
    weights = load_file(make_adapter("adapter") / "adapter_model.safetensors")
    (tmp_path / "place").mkdir()
    file = tmp_path / "place" / "zero-v1.1-SV.safetensors"
    save_file({name.replace(".weight", ".default.weight"): one for name, one in weights.items()}, file)
    file.with_suffix(".json").write_text(json.dumps({"lora_alpha": 12}), encoding="utf-8")
    (first,) = run(tmp_path / "place", base)
    assert first.result is not None
    adapter = first.result.added.adapter
    assert (adapter.full_name, adapter.alpha) == ("zero-sv@v1.1", 12)
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(conversion.subprocess, "run", None)
        assert told(run(tmp_path / "place", base)) == {"zero-sv@v1.1": (False, True)}
