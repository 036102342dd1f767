"""The ledger's state is measured in the background, as `oneseek ledger verify` judges it."""

from __future__ import annotations

from pathlib import Path

import pytest

from adapters.ledger import Ledger, Record
from adapters.ledger.chain import LEDGER_FILE
from server.metrics import ledger as ledger_watch
from server.metrics.ledger import LedgerWatch
from server.metrics.metrics import Metrics


class Watched:
    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ledger = Ledger.open(folder)
        self.metrics = Metrics(process=False)
        self.watch = LedgerWatch(folder, None, self.metrics)

    def record(self, subject: str) -> None:
        self.ledger.append(Record(action="add", subject=subject))

    @property
    def state(self) -> str:
        """What is exported after a look."""
        self.watch.look()
        (family,) = (one for one in self.metrics.registry.collect() if one.name == "oneseek_ledger_state")
        (state,) = (sample.labels["state"] for sample in family.samples if sample.value == 1)
        return state

    def value(self, name: str) -> float:
        return self.metrics.registry.get_sample_value(name) or 0.0


@pytest.fixture
def watched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Watched:
    monkeypatch.setattr(ledger_watch, "SHARE", -1)
    return Watched(tmp_path / "ledger")


def test_a_ledger_from_nothing_to_tampered(watched: Watched) -> None:
    assert watched.state == "none"
    assert not watched.folder.exists(), "a look leaves nothing behind"
    watched.record("first")
    watched.record("second")
    assert watched.state == "intact"
    assert watched.value("oneseek_ledger_entries") == 2
    file = watched.folder / LEDGER_FILE
    file.write_bytes(file.read_bytes().replace(b'"first"', b'"other"'))
    assert watched.state == "tampered"


def test_a_torn_line_is_no_fault_and_a_missing_ledger_is(watched: Watched) -> None:
    watched.record("first")
    file = watched.folder / LEDGER_FILE
    whole = file.read_bytes()
    file.write_bytes(whole + b'{"torn')
    assert watched.state == "repairable"
    for path in watched.folder.iterdir():
        path.unlink()
    assert watched.state == "removed"


def test_a_ledger_that_is_no_file_is_unreadable(watched: Watched) -> None:
    watched.record("first")
    file = watched.folder / LEDGER_FILE
    file.unlink()
    file.mkdir()
    assert watched.state == "unreadable"


def test_what_has_not_changed_is_not_verified_again(watched: Watched) -> None:
    watched.record("first")
    assert watched.state == "intact"
    at = watched.value("oneseek_ledger_verified_timestamp_seconds")
    assert watched.state == "intact"
    assert watched.value("oneseek_ledger_verified_timestamp_seconds") == at
    watched.record("second")
    assert watched.state == "intact"
    assert watched.value("oneseek_ledger_verified_timestamp_seconds") > at


def test_it_rests_after_a_verification(tmp_path: Path) -> None:
    watched = Watched(tmp_path / "ledger")
    watched.record("first")
    assert watched.state == "intact"
    watched.record("second")
    assert watched.state == "intact"
    assert watched.value("oneseek_ledger_entries") == 1, "so soon after the last one it is not read again"
