"""Verify a ledger's folder: check its lines, its head and its keys against each other."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from adapters.errors import LedgerError
from adapters.files.regular import open_regular
from adapters.ledger.chain import LEDGER_FILE, LedgerLine, Walk, first_key, read_lines
from adapters.ledger.head import Head, tail_state
from adapters.ledger.keys import PublicKey
from adapters.ledger.origin import RESTORE, origin_file, read_origin
from adapters.ledger.record import ROTATE
from adapters.ledger.seal import BrokenSealError, sha256_of
from adapters.ledger.verdict import Fault, LedgerVerdict

HEAD_FILE = "head.json"
PUBLIC_FILE = "public.pem"
KEY_FILE = "key.pem"
NEXT_FILE = "key.next.pem"


def judge_ledger(folder: Path, trusted: PublicKey | None, anchor: str | None = None) -> LedgerVerdict:
    """Return every fault of the ledger in `folder`. Hold its lock, so that nobody writes to it meanwhile.

    `trusted` is a key from elsewhere; the default is the one in the folder. `anchor` is the hash of an entry
    that is known to have been there. Raises `OSError` if a file cannot be read.
    """
    ledger = folder / LEDGER_FILE
    data = _read(ledger)
    faults: list[Fault] = []
    head = _head(folder, faults)
    if not data and (head.count == 0 if head else not faults):
        reason = "there is no ledger here: nothing was recorded yet, or it was removed"
        if os.path.lexists(origin_file(folder)):
            reason = f"the ledger was removed: {origin_file(folder).name} records its first entry. {RESTORE}"
        absent = Fault(kind="absent", file=str(folder), message=reason)
        return LedgerVerdict(folder=folder, count=0, last=None, keys=(), known=frozenset(), faults=(absent,))
    end, torn = _end(data, head)
    lines = list(read_lines(data[:end]))
    beside = _beside(folder, faults)
    known_key = trusted or beside
    if known_key is None and lines and lines[0].entry is not None:
        known_key = lines[0].entry.key
    if known_key is None:
        return LedgerVerdict(
            folder=folder, count=0, last=None, keys=(), known=frozenset(), faults=tuple(faults)
        )
    _judge_origin(folder, lines, faults)
    walk = Walk(first_key(lines, known_key)).over(lines)
    _judge_head(walk, head, len(data), faults)
    _judge_keys(walk, beside, known_key, faults)
    if torn:
        message = f"the ledger ends in {len(data) - end} bytes of an entry that was never finished"
        faults.insert(0, Fault(kind="torn", file=LEDGER_FILE, line=len(lines) + 1, message=message))
    if anchor is not None and anchor not in walk.hashes.values():
        message = f"no entry has the hash {anchor}: this is another ledger, or an older copy was restored"
        faults.append(Fault(kind="removed", file=LEDGER_FILE, message=message))
    faults = [*walk.faults, *faults]
    return LedgerVerdict(
        folder=folder,
        count=len(walk.hashes),
        last=walk.last.hash if walk.last else None,
        keys=tuple(key.text for key in walk.keys),
        known=frozenset(walk.known) if all(fault.repairable for fault in faults) else frozenset(),
        faults=tuple(faults),
    )


def _read(ledger: Path) -> bytes:
    try:
        with open_regular(ledger) as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _judge_origin(folder: Path, lines: Sequence[LedgerLine], faults: list[Fault]) -> None:
    try:
        noted = read_origin(folder)
    except LedgerError as problem:
        faults.append(Fault(kind="removed", file=problem.path.name, message=problem.reason))
        return
    if noted is not None and lines and lines[0].entry is not None and sha256_of(lines[0].data) != noted:
        message = f"the first entry is not the one that {origin_file(folder).name} records"
        faults.append(Fault(kind="removed", file=LEDGER_FILE, line=1, message=message))


def _head(folder: Path, faults: list[Fault]) -> Head | None:
    try:
        head = Head.read(folder / HEAD_FILE)
    except BrokenSealError as problem:
        faults.append(Fault(kind="head", file=HEAD_FILE, message=str(problem)))
        return None
    if head is None and any((folder / name).exists() for name in (LEDGER_FILE, KEY_FILE)):
        message = "the ledger's head was removed, so it is unknown whether the last entries were cut off"
        faults.append(Fault(kind="head", file=HEAD_FILE, message=message))
    return head


def _beside(folder: Path, faults: list[Fault]) -> PublicKey | None:
    try:
        return PublicKey.read(folder / PUBLIC_FILE)
    except LedgerError as problem:
        faults.append(Fault(kind="key", file=PUBLIC_FILE, message=problem.reason))
        return None


def _end(data: bytes, head: Head | None) -> tuple[int, bool]:
    """Return how many bytes hold whole lines, and if a torn line follows them."""
    if head is None or not 0 <= head.size <= len(data) or data[: head.size][-1:] not in (b"", b"\n"):
        return len(data), False
    if tail_state(data[head.size :], head) == "torn":
        return head.size, True
    return len(data), False


def _judge_head(walk: Walk, head: Head | None, size: int, faults: list[Fault]) -> None:
    if head is None:
        return
    last = walk.last
    signers = {walk.key} | ({last.key} if last is not None and last.record.action == ROTATE else set())
    if head.key not in signers:
        message = (
            f"the head is signed by {head.key.text}, but the ledger's key is {walk.key.text}: "
            "the head was replaced"
        )
        faults.append(Fault(kind="head", file=HEAD_FILE, message=message))
        return
    if head.count > walk.position:
        first = walk.position + 1
        missing = f"entry {first} is" if first == head.count else f"entries {first} to {head.count} are"
        message = f"{missing} missing at the end: the ledger was cut off"
        line = walk.at.get(walk.position, walk.position) + 1
        faults.append(Fault(kind="cut", file=LEDGER_FILE, line=line, message=message))
        return
    named = walk.hashes.get(head.count)
    if head.count == walk.position - 1 and last is not None and head.hash == last.previous:
        message = f"entry {walk.position} is complete, but {HEAD_FILE} does not name it yet"
        line = walk.at[walk.position]
        faults.append(Fault(kind="head-behind", file=LEDGER_FILE, line=line, message=message))
    elif head.count < walk.position:
        message = f"the head names {head.count} of {walk.position} entries: an older head was restored"
        faults.append(Fault(kind="head", file=HEAD_FILE, message=message))
    elif head.count and named is not None and named != head.hash:
        message = f"the head names a last entry that differs from line {walk.at[head.count]} of the ledger"
        faults.append(Fault(kind="head", file=HEAD_FILE, message=message))
    elif not walk.faults and head.size > size:
        message = (
            f"the head names {head.size} bytes, but the ledger has {size}: its last line feed is missing"
        )
        faults.append(Fault(kind="cut", file=LEDGER_FILE, line=walk.position, message=message))


def _judge_keys(walk: Walk, beside: PublicKey | None, trusted: PublicKey, faults: list[Fault]) -> None:
    if trusted not in walk.keys:
        message = f"the ledger's keys are {', '.join(key.text for key in walk.keys)}, not {trusted.text}"
        faults.append(Fault(kind="foreign-key", file=LEDGER_FILE, message=message))
    if beside is None or beside == walk.key:
        return
    last = walk.last
    if last is not None and last.record.action == ROTATE and last.key == beside:
        message = f"entry {last.sequence} changed keys, but {PUBLIC_FILE} still holds the old key"
        faults.append(Fault(kind="rotation", file=PUBLIC_FILE, message=message))
        return
    message = f"the file holds {beside.text}, but the ledger's key is {walk.key.text}: the file was replaced"
    faults.append(Fault(kind="key", file=PUBLIC_FILE, message=message))
