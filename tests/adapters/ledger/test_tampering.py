"""Whatever is done to a ledger by one who has not its key is found, and named by its line."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from adapters.errors import LedgerError
from adapters.ledger import Entry, Ledger, LedgerVerdict, Record
from adapters.ledger.keys import PublicKey, SigningKey
from adapters.ledger.seal import seal
from tests.adapters.ledger.conftest import record

Copied = Callable[[], Path]
SAME_FIXTURE = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)


def lines(folder: Path) -> list[bytes]:
    return (folder / "ledger.jsonl").read_bytes().splitlines(keepends=True)


def put(folder: Path, changed: list[bytes]) -> LedgerVerdict:
    (folder / "ledger.jsonl").write_bytes(b"".join(changed))
    return Ledger.open(folder).verify()


def found(verdict: LedgerVerdict) -> list[tuple[str, int | None]]:
    return [(fault.kind, fault.line) for fault in verdict.faults]


def test_an_untouched_ledger_is_intact(written: Path) -> None:
    verdict = Ledger.open(written).verify()
    assert verdict.state == "intact", verdict.faults
    assert verdict.count == 5
    assert len(verdict.keys) == 2
    assert verdict.last == list(Ledger.open(written).entries())[-1].hash


@SAME_FIXTURE
@given(data=st.data())
def test_any_changed_byte_is_found_on_its_line(data: st.DataObject, copied: Copied) -> None:
    folder = copied()
    whole = (folder / "ledger.jsonl").read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    to = data.draw(st.integers(0, 255).filter(lambda value: value != whole[at]))
    (folder / "ledger.jsonl").write_bytes(whole[:at] + bytes([to]) + whole[at + 1 :])
    verdict = Ledger.open(folder).verify()
    assert verdict.state == "tampered"
    assert verdict.faults[0].line == whole.count(b"\n", 0, at) + 1, verdict.faults


def test_every_part_of_one_line_counts(copied: Copied) -> None:
    folder = copied()
    whole = lines(folder)
    for at in range(0, len(whole[1]), 3):
        changed = bytearray(whole[1])
        changed[at] ^= 1
        verdict = put(folder, [whole[0], bytes(changed), *whole[2:]])
        assert verdict.state == "tampered"
        assert verdict.faults[0].line == 2, (at, verdict.faults)


@SAME_FIXTURE
@given(data=st.data())
def test_any_changed_byte_of_the_head_is_found(data: st.DataObject, copied: Copied) -> None:
    folder = copied()
    head = folder / "head.json"
    whole = head.read_bytes()
    at = data.draw(st.integers(0, len(whole) - 1))
    to = data.draw(st.integers(0, 255).filter(lambda value: value != whole[at]))
    head.write_bytes(whole[:at] + bytes([to]) + whole[at + 1 :])
    verdict = Ledger.open(folder).verify()
    assert verdict.state == "tampered"
    assert [fault.file for fault in verdict.faults] == ["head.json"]


@pytest.mark.parametrize("gone", range(5))
def test_a_removed_entry_is_named(gone: int, copied: Copied) -> None:
    folder = copied()
    whole = lines(folder)
    verdict = put(folder, whole[:gone] + whole[gone + 1 :])
    assert verdict.state == "tampered"
    kind = "cut" if gone == 4 else "removed"
    assert (kind, gone + 1) in found(verdict)
    assert f"entry {gone + 1} " in "\n".join(map(str, verdict.faults))


def test_a_removed_change_of_keys_makes_what_follows_foreign(copied: Copied) -> None:
    folder = copied()
    whole = lines(folder)
    verdict = put(folder, whole[:3] + whole[4:])
    assert {"removed", "foreign-key"} <= {fault.kind for fault in verdict.faults}
    assert {fault.line for fault in verdict.faults if fault.line} <= {1, 4}


@pytest.mark.parametrize("kept", range(5))
def test_a_cut_end_is_named(kept: int, copied: Copied) -> None:
    folder = copied()
    verdict = put(folder, lines(folder)[:kept])
    assert verdict.state == "tampered"
    assert ("cut", kept + 1) in found(verdict)


@pytest.mark.parametrize("first", range(4))
def test_two_entries_in_the_wrong_order_are_named(first: int, copied: Copied) -> None:
    folder = copied()
    whole = lines(folder)
    whole[first], whole[first + 1] = whole[first + 1], whole[first]
    verdict = put(folder, whole)
    assert verdict.state == "tampered"
    assert ("moved", first + 2) in found(verdict)


@pytest.mark.parametrize("line", range(5))
@pytest.mark.parametrize("at", range(1, 6))
def test_a_repeated_entry_is_named(line: int, at: int, copied: Copied) -> None:
    folder = copied()
    whole = lines(folder)
    verdict = put(folder, [*whole[:at], whole[line], *whole[at:]])
    assert verdict.state == "tampered"
    assert ("repeated", line + 2 if line >= at else at + 1) in found(verdict)


def test_a_line_put_between_is_named_and_the_rest_is_as_it_was(copied: Copied) -> None:
    folder = copied()
    whole = lines(folder)
    assert found(put(folder, [*whole[:2], b"{}\n", *whole[2:]])) == [("changed", 3)]


def test_the_last_line_feed_counts(copied: Copied) -> None:
    folder = copied()
    (folder / "ledger.jsonl").write_bytes(b"".join(lines(folder))[:-1])
    assert found(Ledger.open(folder).verify()) == [("cut", 5)]


def test_an_entry_signed_by_another_key_is_named(copied: Copied, tmp_path: Path) -> None:
    folder = copied()
    foreign = Ledger.open(tmp_path / "foreign")
    for number in range(6):
        foreign.append(record(number + 10))
    whole = lines(folder)
    whole[2] = lines(tmp_path / "foreign")[2]
    verdict = put(folder, whole)
    assert verdict.state == "tampered"
    assert ("foreign-key", 3) in found(verdict)
    assert f"sha256:{12:064x}" not in verdict.known
    verdict = put(folder, [*lines(folder)[:2], whole[2], *whole[3:], lines(tmp_path / "foreign")[5]])
    assert ("foreign-key", 6) in found(verdict)


def test_a_history_of_the_same_key_in_another_place_is_named(tmp_path: Path) -> None:
    """Two machines that go on from copies of one ledger write two histories."""
    Ledger.open(tmp_path / "one").append(record(0))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for place in ("one", "two"):
        for number in range(1, 3):
            Ledger.open(tmp_path / place).append(
                Record(action="eval", subject=place, metrics={"score": number})
            )
    mixed = [*lines(tmp_path / "one")[:2], lines(tmp_path / "two")[2]]
    assert ("forked", 3) in found(put(tmp_path / "one", mixed))


def test_the_head_of_another_history_is_named_and_not_gone_on_from(tmp_path: Path) -> None:
    Ledger.open(tmp_path / "one").append(record(0))
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    for place in ("one", "two"):
        Ledger.open(tmp_path / place).append(Record(action="eval", subject=place))
    shutil.copy(tmp_path / "two" / "head.json", tmp_path / "one")
    verdict = Ledger.open(tmp_path / "one").verify()
    assert found(verdict) == [("head", None)]
    assert "line 2" in str(verdict.faults[0])
    with pytest.raises(LedgerError, match=r"head\.json"):
        Ledger.open(tmp_path / "one").append(record(1))


def test_an_entry_added_with_another_key_is_not_taken_in(copied: Copied) -> None:
    """One who can write to the file, and has not the key, adds what looks like an unfinished entry."""
    folder = copied()
    last = list(Ledger.open(folder).entries())[-1]
    forged = Entry.write(record(9), 6, last.hash, {"oneseek": "1"}, SigningKey.generate())
    verdict = put(folder, [*lines(folder), forged.line + b"\n"])
    assert verdict.state == "tampered"
    assert ("foreign-key", 6) in found(verdict)
    assert verdict.known == frozenset()
    for change in (Ledger.repair, Ledger.rotate):
        with pytest.raises(LedgerError, match=r"ledger\.jsonl"):
            change(Ledger.open(folder))


def test_a_ledger_replaced_as_a_whole_fits_itself_but_no_key_and_no_entry_from_before(
    written: Path, tmp_path: Path
) -> None:
    shutil.copytree(written, tmp_path / "copy")
    genuine = PublicKey.read(written / "public.pem")
    anchor = Ledger.open(written).verify().last
    forged = Ledger.open(tmp_path / "forged")
    for number in range(5):
        forged.append(record(number))
    assert forged.verify().state == "intact"
    assert found(forged.verify(genuine))[0] == ("foreign-key", 1)
    assert forged.verify(genuine).known == frozenset()
    gap = Ledger.open(shutil.copytree(tmp_path / "forged", tmp_path / "gap"))
    (gap.folder / "ledger.jsonl").write_bytes(b"".join(lines(gap.folder)[:2] + lines(gap.folder)[3:]))
    assert ("foreign-key", None) in found(gap.verify(genuine))
    assert [fault.kind for fault in forged.verify(anchor=anchor).faults] == ["removed"]
    assert forged.verify(written / "public.pem").state == "tampered"
    assert Ledger.open(written).verify(genuine, anchor=anchor).state == "intact"


def test_every_key_the_ledger_has_had_verifies_it(written: Path) -> None:
    first = next(iter(Ledger.open(written).entries())).key
    assert Ledger.open(written).verify(first).state == "intact"
    assert Ledger.open(written).verify(SigningKey.generate().public).state == "tampered"


def test_nobody_can_hand_over_to_a_key_that_is_not_theirs(written: Path, tmp_path: Path) -> None:
    """A forged history that ends by naming the genuine key must not pass for what that key vouches for."""
    genuine = PublicKey.read(written / "public.pem")
    forged = Ledger.open(tmp_path / "forged")
    forged.append(record(0))
    proof = list(Ledger.open(written).entries())[3].record.details["proof"]
    last = list(forged.entries())[-1]
    fields = json.loads(last.line)
    del fields["signature"]
    fields |= {"action": "rotate", "sequence": 2, "previous": last.hash, "outputs": {}}
    fields |= {"details": {"new_key": genuine.text, "proof": proof}}
    key = SigningKey.read(tmp_path / "forged" / "key.pem")
    whole = [*lines(tmp_path / "forged"), seal(fields, key) + b"\n"]
    verdict = put(tmp_path / "forged", whole)
    assert found(verdict)[0] == ("changed", 2)


def test_an_older_head_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "ledger"
    heads: list[bytes] = []
    for number in range(4):
        Ledger.open(folder).append(record(number))
        heads.append((folder / "head.json").read_bytes())
    (folder / "head.json").write_bytes(heads[0])
    assert found(Ledger.open(folder).verify()) == [("head", None)]
    (folder / "head.json").write_bytes(heads[2])
    assert Ledger.open(folder).verify().state == "repairable"


def test_a_head_of_another_key_or_another_ledger_is_named(copied: Copied, tmp_path: Path) -> None:
    folder = copied()
    for number in range(5):
        Ledger.open(tmp_path / "foreign").append(record(number))
    shutil.copy(tmp_path / "foreign" / "head.json", folder / "head.json")
    verdict = Ledger.open(folder).verify()
    assert verdict.state == "tampered"
    assert found(verdict) == [("head", None)]
    assert "replaced" in str(verdict.faults[0])


@pytest.mark.parametrize("name", ["head.json", "public.pem"])
def test_a_removed_file_is_named(name: str, copied: Copied) -> None:
    folder = copied()
    (folder / name).unlink()
    verdict = Ledger.open(folder).verify()
    assert verdict.state == "tampered"
    assert [fault.file for fault in verdict.faults] == [name]
    assert verdict.known == frozenset()


def test_a_replaced_public_key_is_named(copied: Copied) -> None:
    folder = copied()
    (folder / "public.pem").write_bytes(SigningKey.generate().public.pem)
    assert Ledger.open(folder).verify().state == "tampered"


def test_a_signature_has_one_spelling(copied: Copied) -> None:
    """The last base64 digit before the padding has bits that mean nothing; they may not be set."""
    folder = copied()
    whole = lines(folder)
    signature = json.loads(whole[4])["signature"]
    digits = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/"
    other = f"{signature[:-3]}{digits[digits.index(signature[-3]) + 1]}=="
    assert base64.b64decode(other) == base64.b64decode(signature)
    whole[4] = whole[4].replace(signature.encode(), other.encode())
    assert ("changed", 5) in found(put(folder, whole))


def cut(folder: Path) -> None:
    put(folder, lines(folder)[:-1])


def repeat(folder: Path) -> None:
    put(folder, [*lines(folder), lines(folder)[-1]])


def change(folder: Path) -> None:
    put(folder, [line.replace(b"@v1.4", b"@v1.5") for line in lines(folder)])


def lose_the_head(folder: Path) -> None:
    (folder / "head.json").unlink()


def spoil_the_head(folder: Path) -> None:
    (folder / "head.json").write_bytes(b"{}")


def lose_the_key(folder: Path) -> None:
    (folder / "key.pem").unlink()


def lose_the_key_and_the_entries(folder: Path) -> None:
    (folder / "key.pem").unlink()
    (folder / "ledger.jsonl").write_bytes(b"")


def change_the_key(folder: Path) -> None:
    SigningKey.generate().write(folder / "key.pem")


@pytest.mark.parametrize(
    "spoil",
    [
        cut,
        repeat,
        change,
        lose_the_head,
        spoil_the_head,
        lose_the_key,
        change_the_key,
        lose_the_key_and_the_entries,
    ],
)
def test_nothing_is_added_to_a_ledger_that_was_tampered_with(
    spoil: Callable[[Path], None], copied: Copied
) -> None:
    folder = copied()
    spoil(folder)
    before = (folder / "ledger.jsonl").read_bytes()
    with pytest.raises(LedgerError, match=r"oneseek ledger verify|key\.pem"):
        Ledger.open(folder).append(record(9))
    assert (folder / "ledger.jsonl").read_bytes() == before
