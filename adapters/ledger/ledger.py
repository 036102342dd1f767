"""The ledger in a folder: one lock around every change, and questions to what is there."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import contextmanager
from pathlib import Path

from adapters.errors import LedgerError
from adapters.ledger.chain import LEDGER_FILE
from adapters.ledger.journal import LedgerJournal
from adapters.ledger.keys import PublicKey
from adapters.ledger.lineage import Lineage, trace
from adapters.ledger.record import MAX_LINE_BYTES, REVOKE, ROTATE, Entry, Record
from adapters.ledger.seal import BrokenSealError
from adapters.ledger.verdict import LedgerVerdict
from adapters.ledger.verify import judge_ledger
from adapters.version import commit, oneseek_version

LOCK_FILE = "ledger.lock"
LOCK_SECONDS = 60
_LOOK = "Look with: oneseek ledger verify"


class Ledger:
    """A ledger's folder. Safe to use from any thread and process; each call reads what is there by then."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._file = folder / LEDGER_FILE

    @classmethod
    def open(cls, folder: Path) -> Ledger:
        """The ledger in `folder`, which is made at the first entry and not before."""
        return cls(folder)

    def append(self, record: Record) -> Entry:
        """Add `record`; when this returns it is on the disk, and the head names it.

        What a crash left behind is mended first. Raises `LedgerError` where the ledger was tampered with at
        its end or its key cannot be used, `ValueError` for a record that does not fit; nothing is added then.
        An `OSError`, as of a full disk, may leave a part of a line, which the next entry sets aside.
        """
        if record.action == ROTATE:
            raise ValueError("action 'rotate': keys are changed by Ledger.rotate")
        code = _code()
        with self._locked():
            return LedgerJournal(self.folder).add(record, code)

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
            file = self._file.open("rb")
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


def _code() -> dict[str, str]:
    found = {"oneseek": oneseek_version()}
    if (here := commit()) is not None:
        found["commit"] = here
    return found
