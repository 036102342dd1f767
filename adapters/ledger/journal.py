"""Write the ledger's files, and repair what a crash left. The caller holds the lock.

An entry is flushed before the head that names it, and a rotation's entry before the keys are exchanged. So a
crash leaves at most one line, whole or torn, that the head does not name, or keys that are not exchanged yet.
An acknowledged entry is never touched.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from adapters.errors import LedgerError
from adapters.files.atomic import flush_folder, replace_file, write_file
from adapters.files.full import naming
from adapters.files.regular import open_regular
from adapters.ledger.chain import LEDGER_FILE, check_hashes
from adapters.ledger.head import Head, tail_state
from adapters.ledger.keys import PublicKey, SigningKey
from adapters.ledger.origin import check_origin, check_present, note_origin
from adapters.ledger.record import MAX_LINE_BYTES, ROTATE, Entry, Record, rotation
from adapters.ledger.seal import BrokenSealError
from adapters.ledger.verify import HEAD_FILE, KEY_FILE, NEXT_FILE, PUBLIC_FILE

_LOOK = "Run oneseek ledger verify to see what is wrong"


class LedgerJournal:
    """The files of one ledger, ready for another entry. Raises `LedgerError` if the ledger cannot be
    extended.
    """

    def __init__(self, folder: Path, verified: str | None = None) -> None:
        """Read and check every line, unless `verified` equals the present `stamp`."""
        check_present(folder, folder / LEDGER_FILE)
        self._folder = folder
        self._verified = verified
        self._file = folder / LEDGER_FILE
        self._head_file = folder / HEAD_FILE
        self._public_file = folder / PUBLIC_FILE
        self._key_file = folder / KEY_FILE
        self._next_file = folder / NEXT_FILE
        self.head = self._mend() if self.begun else self._begin()
        self.key = SigningKey.read(self._key_file)

    @property
    def begun(self) -> bool:
        """True if the ledger has begun. A crash may leave a first head without its key; that does not
        count.
        """
        if self._key_file.exists() or self._size() > 0:
            return True
        return self._head_file.exists() and self._known_head().count > 0

    def add(self, record: Record, code: Mapping[str, str]) -> Entry:
        """Add an entry. When this returns, the entry is on the disk and the head names it."""
        entry = Entry.write(record, self.head.count + 1, self.head.hash, code, self.key)
        try:
            with naming(self._file), self._file.open("ab", buffering=0) as file:
                left = memoryview(entry.line + b"\n")
                while left:
                    left = left[file.write(left) or 0 :]
                os.fsync(file.fileno())
            head = self._point(self.key, entry, self.head.size + len(entry.line) + 1)
        except OSError:
            self._take_back()
            raise
        self.head = head
        with suppress(OSError, LedgerError):
            note_origin(self._folder, self._file)
        return entry

    def _take_back(self) -> None:
        """Remove what was written after the head. It was never acknowledged, because the disk is full or
        gone.
        """
        with suppress(OSError, BrokenSealError):
            if Head.read(self._head_file) == self.head:
                os.truncate(self._file, self.head.size)

    @property
    def stamp(self) -> str:
        """Return text that changes whenever the file of entries is written to."""
        status = self._file.stat()
        return f"{status.st_ino} {status.st_size} {status.st_mtime_ns} {status.st_ctime_ns}"

    def rotate(self, code: Mapping[str, str]) -> PublicKey:
        """Rotate to a new key."""
        new = SigningKey.generate()
        new.write(self._next_file)
        self.add(rotation(self.head.hash, self.key.public, new), code)
        self.head = self._handed_over(self.head)
        self.key = new
        return new.public

    def _begin(self) -> Head:
        """Start a new ledger. The key is written last, so a key without a head is a fault."""
        key = SigningKey.generate()
        head = Head.write(self._head_file, key)
        write_file(self._public_file, key.public.pem, 0o644)
        with self._file.open("ab") as file:
            os.fsync(file.fileno())
        flush_folder(self._file.parent)
        key.write(self._key_file)
        return head

    def _mend(self) -> Head:
        head = self._handed_over(self._known_head())
        if not self._key_file.exists():
            raise LedgerError(
                self._key_file,
                "the private key is missing, so no entry can be added to the ledger",
                "Restore the key, or move the folder away to begin a new ledger.",
            )
        key = SigningKey.read(self._key_file)
        if key.public != head.key:
            raise LedgerError(
                self._head_file, f"the ledger's head is not signed by the key in {KEY_FILE}", _LOOK
            )
        if self._verified is None or self._verified != self.stamp:
            check_hashes(self._file, head.count, head.size, head.hash)
            check_origin(self._folder, self._file)
        after = self._size() - head.size
        if after > MAX_LINE_BYTES:
            raise LedgerError(self._file, "the ledger continues after the entry that its head names", _LOOK)
        tail = self._bytes(head.size, after)
        state = tail_state(tail, head)
        if state == "strange":
            raise LedgerError(self._file, "the ledger continues after the entry that its head names", _LOOK)
        if state == "torn":
            self._set_aside(tail, head)
        if state == "whole":
            head = self._handed_over(self._point(key, self._entry(tail, head.count + 1), head.size + after))
        self._next_file.unlink(missing_ok=True)
        return head

    def _known_head(self) -> Head:
        try:
            head = Head.read(self._head_file)
        except BrokenSealError as problem:
            raise LedgerError(self._head_file, str(problem), _LOOK) from problem
        if head is None:
            raise LedgerError(self._head_file, "the ledger's head was removed", _LOOK)
        return head

    def _handed_over(self, head: Head) -> Head:
        """Return `head` after finishing a key change that its last entry began. The head is the last file to
        change.
        """
        last = self._last(head)
        if last is None or last.record.action != ROTATE or head.key != last.key:
            return head
        if SigningKey.read(self._key_file).public != last.next_key:
            if SigningKey.read(self._next_file).public != last.next_key:
                raise LedgerError(
                    self._next_file, "the key is not the one that signed the last entry of the ledger", _LOOK
                )
            replace_file(self._next_file, self._key_file)
            flush_folder(self._file.parent)
        write_file(self._public_file, last.next_key.pem, 0o644)
        return self._point(SigningKey.read(self._key_file), last, head.size)

    def _last(self, head: Head) -> Entry | None:
        """Return the entry that `head` names; None if it names none."""
        size = self._size()
        found = self._bytes(max(0, head.size - MAX_LINE_BYTES), min(head.size, MAX_LINE_BYTES))
        if size >= head.size and head.count == 0:
            return None
        if size >= head.size and found.endswith(b"\n"):
            last = self._entry(found[found.rfind(b"\n", 0, -1) + 1 :], head.count)
            if last.hash == head.hash:
                return last
        raise LedgerError(
            self._file,
            "the ledger does not end with the entry that head.json names, so entries are missing or were "
            "added",
            _LOOK,
        )

    def _point(self, key: SigningKey, entry: Entry, size: int) -> Head:
        return Head.write(self._head_file, key, count=entry.sequence, size=size, last=entry.hash)

    def _entry(self, line: bytes, number: int) -> Entry:
        try:
            return Entry.read(line.removesuffix(b"\n"))
        except BrokenSealError as problem:
            raise LedgerError(
                self._file, f"line {number} of the ledger is invalid: {problem}", _LOOK
            ) from problem

    def _size(self) -> int:
        return self._file.stat().st_size if self._file.exists() else 0

    def _bytes(self, start: int, count: int) -> bytes:
        if not self._file.exists():
            return b""
        with open_regular(self._file) as file:
            file.seek(start)
            return file.read(count)

    def _set_aside(self, tail: bytes, head: Head) -> None:
        """Move an unfinished last line to a separate file. No caller was told that it was written, but it
        is kept.
        """
        for number in range(1, 1000):
            path = self._file.with_name(f"torn-after-{head.count}-{number}")
            if not path.exists():
                write_file(path, tail, 0o644)
                break
        with self._file.open("rb+") as file:
            file.truncate(head.size)
            os.fsync(file.fileno())
