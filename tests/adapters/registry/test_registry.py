"""The registry on disk: what it takes, what it refuses, and what it finds changed."""

from __future__ import annotations

import json
import shutil
from typing import Any

import numpy as np
import pytest
import yaml

from adapters.errors import AdapterError, LedgerError
from adapters.ledger import Ledger
from adapters.ledger.origin import origin_file
from adapters.lora.digest import adapter_digest
from adapters.lora.manifest import read_fields, read_manifest
from adapters.registry.registry import Base, Registry
from adapters.registry.verify import verify_version
from tests.adapters.registry.registries import NAME, Make, everything, records, scaled

OTHER = "sha256:" + "1" * 64


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


def test_a_version_reads_as_a_manifest(zero: Registry) -> None:
    entry = zero.listing().find("zero@v1.1")
    assert read_manifest(entry.folder) == entry.read()
