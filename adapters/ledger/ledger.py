"""A ledger in a folder: a lock protects every change, and reads need no lock."""

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
_LOOK = "Run oneseek ledger verify to see what is wrong with the ledger"


class Ledger:
    """The ledger in a folder. Safe to use from any thread and process: each call reads the present files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / LEDGER_FILE
        self._verified: str | None = None
        """Stamp of the file when its lines were last checked."""

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """Use the ledger in `folder`. A missing ledger is made when the first entry is added."""
        return cls(folder)

    def append(self, record: Record) -> Entry:
        """Add `record` as an entry. When this returns, the entry is on the disk, and the signed head.json
        names it as the last.

        First repairs what a crash left. Raises `LedgerError` if the ledger was tampered with or removed, or
        its key cannot be used. Raises `ValueError` if the record does not fit into an entry, and `OSError`
        for a full disk, for example. After an error nothing is added.
        """
        if record.action == ROTATE:
            raise ValueError(
                "the ledger action 'rotate' is reserved: call Ledger.rotate to change the signing key"
            )
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
        """Begin a new ledger to replace one that was removed. Its first entry records the hash of the lost
        ledger's first entry.

        Raises `LedgerError` if any file of the old ledger is left.
        """
        if self.begun:
            remedy = "If the ledger cannot be restored, move the folder away first."
            raise LedgerError(self.folder, "the folder already holds a ledger, or parts of one", remedy)
        try:
            lost = read_origin(self.folder)
        except LedgerError:
            lost = None
        origin_file(self.folder).unlink(missing_ok=True)
        return self.append(Record(action="begin", subject="ledger", details={"lost": lost} if lost else {}))

    def rotate(self) -> PublicKey:
        """Change the ledger's key. The old key signs an entry that names the new key, and is then replaced.
        Returns the new key.

        That entry also holds a signature by the new key, which vouches for all earlier entries. Raises the
        errors of `append`.
        """
        code = _code()
        with self._locked():
            return LedgerJournal(self.folder).rotate(code)

    def repair(self) -> LedgerVerdict:
        """Repair what a crash left unfinished in the ledger, then verify the whole ledger. Raises the errors
        of `append`.
        """
        if self._file.exists():
            with self._locked():
                LedgerJournal(self.folder)
        return self.verify()

    def verify(
        self, public_key: PublicKey | Path | None = None, *, anchor: str | None = None
    ) -> LedgerVerdict:
        """Verify the whole ledger against `public_key` (a key or its PEM file). Default: the key in the
        ledger's folder.

        `anchor` is the hash of an entry that must be in the ledger. Raises `LedgerError` if the file
        `public_key` holds no key, or if the ledger cannot be read.
        """
        trusted = PublicKey.read(public_key) if isinstance(public_key, Path) else public_key
        try:
            with self._locked(required=False):
                return judge_ledger(self.folder, trusted, anchor)
        except OSError as problem:
            reason = f"cannot be read ({problem.strerror})"
            raise LedgerError(
                self.folder, reason, "Check the permissions of the ledger's files."
            ) from problem

    def entries(self) -> Iterator[Entry]:
        """Yield each entry, oldest first. Checks each entry's signature, but not its position in the chain:
        see `verify`.

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
                    raise LedgerError(self._file, f"line {number}: {problem}", _LOOK) from problem
                yield entry
                number += 1
            if len(line) > MAX_LINE_BYTES:
                raise LedgerError(self._file, f"line {number} is too long to be a ledger entry", _LOOK)

    def knows(self, digest: str) -> bool:
        """True if an entry has this digest among its outputs, and no later entry revoked it.

        The digest of a retired version stays known. An entry with the action `revoke` makes the digests among
        its inputs unknown, until a later entry has them among its outputs again.
        """
        known = False
        for entry in self.entries():
            if entry.record.action == REVOKE and any(digest == one for _, one in entry.record.sources):
                known = False
            if digest in entry.record.outputs.values():
                known = True
        return known

    def lineage(self, subject_or_digest: str) -> Lineage:
        """Return what `alias@version` was made from, back to the data. A digest, or its first 8 digits or
        more, also works as the name.

        Raises `UnknownInLedgerError` if no entry is about it.
        """
        return trace(tuple(self.entries()), subject_or_digest)

    @contextmanager
    def unchanging(self) -> Generator[None]:
        """Context manager that keeps others from changing the ledger meanwhile. Raises `LedgerError` if it
        stays locked.
        """
        with self._locked(required=False):
            yield

    @contextmanager
    def _locked(self, *, required: bool = True) -> Generator[None]:
        """Hold the ledger's lock. If `required` is false and the folder is not writable, continue without the
        lock.
        """
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
            reason = f"has been held by another process for {LOCK_SECONDS} seconds or more"
            remedy = "Wait for that process, or end it; its lock ends with it."
            raise LedgerError(self.folder / LOCK_FILE, reason, remedy) from problem
        except OSError as problem:
            if required:
                reason = f"cannot be locked ({problem.strerror})"
                raise LedgerError(
                    self.folder / LOCK_FILE, reason, "Check the permissions of the ledger's folder."
                ) from problem
        try:
            yield
        finally:
            if held:
                lock.release()


@cache
def _code() -> Mapping[str, str]:
    """Return the version of OneSeek that is running, and its commit in a checkout, as entries record them."""
    found = {"oneseek": oneseek_version()}
    if (here := commit()) is not None:
        found["commit"] = here
    return found
