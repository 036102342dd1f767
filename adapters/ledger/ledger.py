"""The ledger in a folder: one lock around every change, and questions to what is there."""

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
_LOOK = "Look with: oneseek ledger verify"


class Ledger:
    """A ledger's folder. Safe to use from any thread and process; each call reads what is there by then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / LEDGER_FILE
        self._verified: str | None = None
        """The file's stamp when its lines were last known to fit together."""

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger in `folder`, which is made at the first entry and not before."""
        return cls(folder)

    def append(self, record: Record) -> Entry:
        """Add `record`; when this returns it is on the disk, and the head names it.

        What a crash left behind is mended first. Raises `LedgerError` if the ledger was tampered with or
        removed, or its key cannot be used, `ValueError` for a record that does not fit, and `OSError`, as for
        a full disk; nothing is added then.
        """
        if record.action == ROTATE:
            raise ValueError("action 'rotate': keys are changed by Ledger.rotate")
        code = _code()
        with self._locked():
            journal = LedgerJournal(self.folder, self._verified)
            entry = journal.add(record, code)
            self._verified = journal.stamp
            return entry

    @property
    def begun(self) -> bool:
        """Whether there is a ledger, whole or not."""
        return any((self.folder / name).exists() for name in (LEDGER_FILE, HEAD_FILE, KEY_FILE))

    def begin_anew(self) -> Entry:
        """Begin another ledger in the place of one that was removed; its first entry tells what was lost.

        Raises `LedgerError` if anything of a ledger is there.
        """
        if self.begun:
            remedy = "Move the folder away first, if it cannot be restored."
            raise LedgerError(self.folder, "holds a ledger, or parts of one", remedy)
        try:
            lost = read_origin(self.folder)
        except LedgerError:
            lost = None
        origin_file(self.folder).unlink(missing_ok=True)
        return self.append(Record(action="begin", subject="ledger", details={"lost": lost} if lost else {}))

    def rotate(self) -> PublicKey:
        """Change keys: the old one signs an entry that names the new one, which takes its place.

        The new key signs too, so that it vouches for everything before. Raises as `append` does.
        """
        code = _code()
        with self._locked():
            return LedgerJournal(self.folder).rotate(code)

    def repair(self) -> LedgerVerdict:
        """Mend what a crash left behind, and judge the whole ledger. Raises as `append` does."""
        if self._file.exists():
            with self._locked():
                LedgerJournal(self.folder)
        return self.verify()

    def verify(
        self, public_key: PublicKey | Path | None = None, *, anchor: str | None = None
    ) -> LedgerVerdict:
        """Judge the whole ledger, against a key (or its PEM file) from elsewhere, or the one beside it.

        `anchor` is the hash of an entry that is known to have been there. Raises `LedgerError` where
        `public_key` is a file that holds none, or the ledger cannot be read.
        """
        trusted = PublicKey.read(public_key) if isinstance(public_key, Path) else public_key
        try:
            with self._locked(required=False):
                return judge_ledger(self.folder, trusted, anchor)
        except OSError as problem:
            reason = f"cannot be read ({problem.strerror})"
            raise LedgerError(self.folder, reason, "Check who may read its files.") from problem

    def entries(self) -> Iterator[Entry]:
        """Each entry, oldest first, its signature checked but not its place; `verify` judges that.

        Stops before a line that was never finished. Raises `LedgerError` for any other that is no entry.
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
                    raise LedgerError(self._file, f"line {number} {problem}", _LOOK) from problem
                yield entry
                number += 1
            if len(line) > MAX_LINE_BYTES:
                raise LedgerError(self._file, f"line {number} is too long to be an entry", _LOOK)

    def knows(self, digest: str) -> bool:
        """Whether some entry made this digest and none revoked it since.

        A version that was retired stays known: where it came from has not changed. An entry with the action
        `revoke` takes the digests among its inputs out, until another makes them again.
        """
        known = False
        for entry in self.entries():
            if entry.record.action == REVOKE and any(digest == one for _, one in entry.record.sources):
                known = False
            if digest in entry.record.outputs.values():
                known = True
        return known

    def lineage(self, subject_or_digest: str) -> Lineage:
        """What `alias@version`, or a digest or its first 8 digits or more, was made from, back to the data.

        Raises `UnknownInLedgerError` where no entry is about it.
        """
        return trace(tuple(self.entries()), subject_or_digest)

    @contextmanager
    def _locked(self, *, required: bool = True) -> Generator[None]:
        """Hold the lock; where that is not `required`, go without if the folder may not be written to."""
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
            reason = f"is held by another process since {LOCK_SECONDS} seconds or more"
            remedy = "Wait for it, or end it; a lock goes with the process that holds it."
            raise LedgerError(self.folder / LOCK_FILE, reason, remedy) from problem
        except OSError as problem:
            if required:
                reason = f"cannot be locked ({problem.strerror})"
                raise LedgerError(self.folder / LOCK_FILE, reason, "Check who may write there.") from problem
        try:
            yield
        finally:
            if held:
                lock.release()


@cache
def _code() -> Mapping[str, str]:
    """Which code runs here; it stays so for as long as the process does."""
    found = {"oneseek": oneseek_version()}
    if (here := commit()) is not None:
        found["commit"] = here
    return found
