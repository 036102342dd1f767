"""The ledger in a folder: every change takes one lock; reads see what is there."""

from __future__ import annotations

from collections.abc import Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from adapters.errors import LedgerError
from adapters.files.regular import open_regular
from adapters.ledger.chain import LEDGER_FILE
from adapters.ledger.journal import LedgerJournal
from adapters.ledger.keys import PublicKey
from adapters.ledger.lineage import Lineage, trace
from adapters.ledger.origin import origin_file, read_origin
from adapters.ledger.record import MAX_LINE_BYTES, REVOKE, ROTATE, Entry, Record
from adapters.ledger.seal import BrokenSealError
from adapters.ledger.verdict import LedgerVerdict
from adapters.ledger.verify import HEAD_FILE, KEY_FILE, judge_ledger
from adapters.version import commit, oneseek_version

LOCK_FILE = "ledger.lock"
LOCK_SECONDS = 60
_LOOK = "Run oneseek ledger verify to see what is wrong"


class Ledger:
    """A ledger's folder. Safe to use from any thread and process; each call reads the present files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / LEDGER_FILE
        self._verified: str | None = None
        """Stamp of the file when its lines were last checked."""

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Use the ledger in `folder`. It is made when the first entry is added."""
        return cls(folder)

    def append(self, record: Record) -> Entry:
        """Add `record`. When this returns, it is on the disk and the head names it.

        Repairs what a crash left first. Raises `LedgerError` if the ledger was tampered with or removed, or
        its key cannot be used. Raises `ValueError` if the record does not fit, and `OSError`, such as for a
        full disk. After an error nothing is added.
        """
        if record.action == ROTATE:
            raise ValueError("action 'rotate' is reserved: use Ledger.rotate to change keys")
        code = _code()
        with self._locked():
            journal = LedgerJournal(self.folder, self._verified)
            entry = journal.add(record, code)
            self._verified = journal.stamp
            return entry

    @property
    def begun(self) -> bool:
        """True if there is a ledger, intact or not."""
        return any((self.folder / name).exists() for name in (LEDGER_FILE, HEAD_FILE, KEY_FILE))

    def begin_anew(self) -> Entry:
        """Begin a new ledger to replace one that was removed. Its first entry records what was lost.

        Raises `LedgerError` if any file of a ledger is left.
        """
        if self.begun:
            raise LedgerError(
                self.folder,
                "the folder already holds a ledger, or parts of one",
                "Restore the ledger. If that is not possible, move the folder away first.",
            )
        try:
            lost = read_origin(self.folder)
        except LedgerError:
            lost = None
        origin_file(self.folder).unlink(missing_ok=True)
        return self.append(Record(action="begin", subject="ledger", details={"lost": lost} if lost else {}))

    def rotate(self) -> PublicKey:
        """Change keys: the old key signs an entry that names the new one, and the new one replaces it.

        The new key signs too, so it vouches for everything before. Raises the errors of `append`.
        """
        code = _code()
        with self._locked():
            return LedgerJournal(self.folder).rotate(code)

    def repair(self) -> LedgerVerdict:
        """Repair what a crash left unfinished, and verify the whole ledger. Raises the errors of `append`."""
        if self._file.exists():
            with self._locked():
                LedgerJournal(self.folder)
        return self.verify()

    def verify(
        self, public_key: PublicKey | Path | None = None, *, anchor: str | None = None
    ) -> LedgerVerdict:
        """Verify the whole ledger against `public_key` (a key or its PEM file), or against the key beside the
        ledger.

        `anchor` is the hash of an entry that is known to have been there. Raises `LedgerError` if
        `public_key` is a file without a key, or the ledger cannot be read.
        """
        trusted = PublicKey.read(public_key) if isinstance(public_key, Path) else public_key
        try:
            with self._locked(required=False):
                return judge_ledger(self.folder, trusted, anchor)
        except OSError as problem:
            raise LedgerError(
                self.folder,
                f"the ledger cannot be read ({problem.strerror})",
                "Check the permissions of its files.",
            ) from problem

    def entries(self) -> Iterator[Entry]:
        """Yield each entry, oldest first. Its signature is checked, its place is not; use `verify` for that.

        Stops before an unfinished last line. Raises `LedgerError` for any other line that is not an entry.
        """
        try:
            file = open_regular(self._file)
        except FileNotFoundError:
            return
        with file:
            number = 1
            while (line := file.readline(MAX_LINE_BYTES + 1)).endswith(b"\n"):
                try:
                    entry = Entry.read(line[:-1])
                except BrokenSealError as problem:
                    raise LedgerError(
                        self._file, f"line {number} of the ledger is invalid: {problem}", _LOOK
                    ) from problem
                yield entry
                number += 1
            if len(line) > MAX_LINE_BYTES:
                raise LedgerError(
                    self._file, f"line {number} of the ledger is too long to be an entry", _LOOK
                )

    def knows(self, digest: str) -> bool:
        """True if an entry made this digest and no later entry revoked it.

        The digest of a retired version stays known. An entry with the action `revoke` removes the digests
        among its inputs, until another entry makes them again.
        """
        known = False
        for entry in self.entries():
            if entry.record.action == REVOKE and any(digest == one for _, one in entry.record.sources):
                known = False
            if digest in entry.record.outputs.values():
                known = True
        return known

    def lineage(self, subject_or_digest: str) -> Lineage:
        """Return what `alias@version` was made from, back to the data. A digest or its first 8 digits or more
        also work.

        Raises `UnknownInLedgerError` if no entry is about it.
        """
        return trace(tuple(self.entries()), subject_or_digest)

    @contextmanager
    def unchanging(self) -> Generator[None]:
        """Block all changes to the ledger while the block runs. Raises `LedgerError`."""
        with self._locked(required=False):
            yield

    @contextmanager
    def _locked(self, *, required: bool = True) -> Generator[None]:
        """Hold the lock. Unless `required`, continue without it if the folder is not writable."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / LOCK_FILE, timeout=LOCK_SECONDS)
        held = False
        try:
            if required:
                self.folder.mkdir(parents=True, exist_ok=True)
            if self.folder.is_dir():
                lock.acquire()
                held = True
        except Timeout as problem:
            raise LedgerError(
                self.folder / LOCK_FILE,
                f"another process has held the ledger's lock for {LOCK_SECONDS} seconds or more",
                "Wait for that process, or end it; its end releases the lock.",
            ) from problem
        except OSError as problem:
            if required:
                raise LedgerError(
                    self.folder / LOCK_FILE,
                    f"the ledger cannot be locked ({problem.strerror})",
                    "Check the permissions of the ledger's folder.",
                ) from problem
        try:
            yield
        finally:
            if held:
                lock.release()


@cache
def _code() -> Mapping[str, str]:
    """Return which code is running. It does not change during the life of the process."""
    found = {"oneseek": oneseek_version()}
    if (here := commit()) is not None:
        found["commit"] = here
    return found
