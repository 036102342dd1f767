"""Nothing is added to a ledger that does not verify, and none begins anew in silence."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path

import pytest

from adapters.errors import LedgerError
from adapters.ledger import Ledger, Record
from adapters.ledger.chain import LEDGER_FILE, check_hashes
from adapters.ledger.head import Head
from adapters.ledger.origin import origin_file
from adapters.ledger.verify import HEAD_FILE
from tests.timing import least_seconds

ENTRIES = 4


def note(number: int) -> Record:
    return Record(action="add", subject=f"zero@v1.{number}", details={"text": 'a "previous":"sha256:" b'})


@pytest.fixture
def filled(tmp_path: Path) -> Ledger:
    ledger = Ledger.open(tmp_path / "home" / "ledger")
    for number in range(ENTRIES):
        ledger.append(note(number))
    return ledger


def everything(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".lock"}


def check_closed(ledger: Ledger, remedy: str) -> None:
    """It takes no entry, and stays as it is."""
    before = everything(ledger.folder)
    for opened in (ledger, Ledger.open(ledger.folder)):
        with pytest.raises(LedgerError, match=remedy):
            opened.append(note(9))
        with pytest.raises(LedgerError, match=remedy):
            opened.rotate()
    assert everything(ledger.folder) == before


def test_a_change_anywhere_closes_it(filled: Ledger) -> None:
    path = filled.folder / LEDGER_FILE
    whole = path.read_bytes()
    for at in range(0, len(whole), 61):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :])
        check_closed(filled, "ledger verify")
    path.write_bytes(whole)
    filled.append(note(9))
    assert filled.verify().state == "intact"


def test_lines_that_are_moved_or_removed_close_it(filled: Ledger) -> None:
    path = filled.folder / LEDGER_FILE
    lines = path.read_bytes().splitlines(keepends=True)
    for other in (
        lines[1:],
        [lines[0], *lines[2:]],
        [lines[0], lines[2], lines[1], lines[3]],
        lines[:-1],
        [lines[0], *lines],
    ):
        path.write_bytes(b"".join(other))
        check_closed(filled, "ledger verify")


def test_a_change_that_keeps_size_and_time_is_seen_after_an_own_entry(filled: Ledger) -> None:
    path = filled.folder / LEDGER_FILE
    before = path.stat()
    data = path.read_bytes()
    path.write_bytes(data.replace(b"v1.0", b"v7.0", 1))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))
    check_closed(filled, "ledger verify")


def test_what_another_process_adds_is_gone_on_from(filled: Ledger) -> None:
    other = Ledger.open(filled.folder)
    for number in range(3):
        (filled, other)[number % 2].append(note(10 + number))
    filled.rotate()
    other.append(note(20))
    assert filled.verify().state == "intact"


def test_a_removed_ledger_begins_anew_by_its_verb_alone(filled: Ledger) -> None:
    shutil.rmtree(filled.folder)
    verdict = filled.verify()
    assert verdict.state == "absent"
    assert "ledger repair --new" in verdict.faults[0].message
    for opened in (filled, Ledger.open(filled.folder)):
        with pytest.raises(LedgerError, match="ledger repair --new"):
            opened.append(note(9))
    assert not (filled.folder / LEDGER_FILE).exists()
    begun = filled.begin_anew()
    assert begun.record.details["lost"].startswith("sha256:")
    before = everything(filled.folder)
    with pytest.raises(LedgerError) as caught:
        filled.begin_anew()
    assert caught.value.path == filled.folder
    assert everything(filled.folder) == before
    filled.append(note(9))
    assert filled.verify().state == "intact"


def test_another_ledger_in_its_place_is_not_gone_on_from(filled: Ledger, tmp_path: Path) -> None:
    other = Ledger.open(tmp_path / "other" / "ledger")
    other.append(note(0))
    shutil.rmtree(filled.folder)
    shutil.copytree(other.folder, filled.folder)
    check_closed(filled, re.escape(str(origin_file(filled.folder))))
    assert filled.verify().state == "tampered"
    origin_file(filled.folder).unlink()
    filled.append(note(9))
    assert origin_file(filled.folder).is_file(), "what an earlier release began is noted at the next entry"


def test_a_damaged_note_of_the_first_entry_closes_it(filled: Ledger) -> None:
    origin_file(filled.folder).write_text("none", "ascii")
    check_closed(filled, "ledger verify")


def test_the_check_is_cheap(filled: Ledger) -> None:
    """Without signatures: 20 times as many lines in the time that signatures would take."""
    head = Head.read(filled.folder / HEAD_FILE)
    assert head is not None
    path = filled.folder / LEDGER_FILE
    hashes, signatures = least_seconds(
        lambda: check_hashes(path, head.count, head.size, head.hash), lambda: list(filled.entries())
    )
    assert 3 * hashes < signatures
