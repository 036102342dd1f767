"""From an adapter back to its data."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from adapters.errors import UnknownInLedgerError
from adapters.ledger import Ledger, Lineage, Record
from tests.adapters.ledger.conftest import sha

BASE, DATA, FIRST, SECOND, BOTH = (sha(letter) for letter in "12345")


@pytest.fixture
def ledger(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(tmp_path)
    inputs = {"base": BASE, "data": DATA}
    ledger.append(Record(action="train", subject="sv@v1", inputs=inputs, outputs={"adapter": FIRST}))
    ledger.append(Record(action="add", subject="sv@v1", outputs={"adapter": FIRST}))
    ledger.append(Record(action="promote", subject="sv@v1", inputs={"adapter": FIRST}))
    parents = {"base": BASE, "parents": (FIRST,), "data": sha("9")}
    ledger.append(Record(action="train", subject="sv@v2", inputs=parents, outputs={"adapter": SECOND}))
    merged = {"parents": (FIRST, SECOND)}
    ledger.append(Record(action="merge", subject="both@v1", inputs=merged, outputs={"adapter": BOTH}))
    return ledger


def outline(lineage: Lineage) -> list[object]:
    return [lineage.role, (lineage.digest or "")[7:8], *map(outline, lineage.sources)]


def test_the_tree_leads_back_to_base_and_data(ledger: Ledger) -> None:
    first = ["parents", "4", ["base", "1"], ["data", "9"], ["parents", "3"]]
    lineage = ledger.lineage("both@v1")
    assert outline(lineage) == ["", "5", ["parents", "3", ["base", "1"], ["data", "2"]], first]
    assert [entry.record.action for entry in lineage.sources[0].makers] == ["train", "add"]
    assert [entry.record.action for entry in lineage.sources[0].history] == ["promote"]
    assert lineage.sources[1].sources[2].repeated
    assert lineage.sources[0].sources[0].subject is None


@pytest.mark.parametrize("name", ["sv@v1", "SV@v1", FIRST, FIRST[7:], FIRST[7:15], FIRST[:20]])
def test_names_digests_and_their_beginnings_lead_to_it(name: str, ledger: Ledger) -> None:
    assert ledger.lineage(name).digest == FIRST


def test_data_tells_what_was_made_of_it(ledger: Ledger) -> None:
    lineage = ledger.lineage(DATA)
    assert lineage.makers == ()
    assert [entry.sequence for entry in lineage.history] == [1]


@pytest.mark.parametrize("name", ["sv@v3", sha("8"), "1234567", "", "sha256:"])
def test_what_the_ledger_does_not_know_is_refused(name: str, ledger: Ledger) -> None:
    with pytest.raises(UnknownInLedgerError, match=re.escape(repr(name))) as caught:
        ledger.lineage(name)
    assert str(caught.value).count("sha256:") == name.count("sha256:")


def test_a_beginning_of_several_digests_is_refused(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    alike = [f"sha256:{'a' * 60}{number:04d}" for number in range(2)]
    ledger.append(Record(action="import", subject="a@v1", inputs={"data": tuple(alike)}))
    with pytest.raises(UnknownInLedgerError, match=", ".join(alike)):
        ledger.lineage("a" * 12)


def test_a_subject_that_nothing_made_has_a_history_alone(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(Record(action="promote", subject="a@v1"))
    lineage = ledger.lineage("a@v1")
    assert (lineage.digest, lineage.makers, len(lineage.history)) == (None, (), 1)


def test_what_names_itself_ends(tmp_path: Path) -> None:
    ledger = Ledger.open(tmp_path)
    ledger.append(
        Record(action="add", subject="a@v1", inputs={"parents": SECOND}, outputs={"adapter": FIRST})
    )
    ledger.append(
        Record(action="add", subject="b@v1", inputs={"parents": FIRST}, outputs={"adapter": SECOND})
    )
    ledger.append(
        Record(action="copy", subject="b@v1", inputs={"source": SECOND}, outputs={"adapter": SECOND})
    )
    lineage = ledger.lineage("b@v1")
    assert outline(lineage) == ["", "4", ["parents", "3", ["parents", "4"]]]
    before = lineage.sources[0].sources[0]
    assert (before.makers, before.repeated) == ((), False)


def test_the_plain_tree_is_json(ledger: Ledger) -> None:
    plain = json.loads(json.dumps(ledger.lineage("both@v1").to_json()))
    assert plain["sources"][0]["makers"][0]["action"] == "train"


def test_what_was_made_is_known_until_it_is_revoked(ledger: Ledger) -> None:
    assert ledger.knows(FIRST)
    assert not ledger.knows(BASE)
    ledger.append(Record(action="retire", subject="sv@v1", inputs={"adapter": FIRST}))
    assert ledger.knows(FIRST)
    ledger.append(Record(action="revoke", subject="sv@v1", inputs={"adapter": FIRST}))
    assert not ledger.knows(FIRST)
    assert FIRST not in ledger.verify().known
    assert SECOND in ledger.verify().known
    ledger.append(Record(action="add", subject="sv@v1", outputs={"adapter": FIRST}))
    assert ledger.knows(FIRST)
    assert FIRST in ledger.verify().known
