"""The hash of a ledger's first entry, kept beside its folder, so that a lost or exchanged ledger is
noticed.
"""

from __future__ import annotations

import re
from pathlib import Path

from adapters.errors import LedgerError
from adapters.files.atomic import write_file
from adapters.files.regular import open_regular, read_regular
from adapters.ledger.record import MAX_LINE_BYTES
from adapters.ledger.seal import sha256_of

_HASH = re.compile(r"sha256:[0-9a-f]{64}")
RESTORE = (
    "Restore the ledger from a copy. If it is lost for good, begin a new one: oneseek ledger repair --new"
)


def origin_file(folder: Path) -> Path:
    """Return the file with the hash of the first entry. It lies beside the ledger's `folder`, not in it."""
    return folder.with_name(f"{folder.name}.origin")


def read_origin(folder: Path) -> str | None:
    """Read the recorded hash; None if there is none. Raises `LedgerError` if the file is damaged."""
    path = origin_file(folder)
    try:
        text = read_regular(path, 128).decode("ascii", "replace").strip()
    except FileNotFoundError:
        return None
    except OSError as problem:
        raise LedgerError(
            path, f"the file cannot be read ({problem.strerror})", "Check the permissions of the file."
        ) from problem
    if not _HASH.fullmatch(text):
        raise LedgerError(
            path,
            "the file must hold the hash of the ledger's first entry, but holds something else",
            "Verify the ledger (oneseek ledger verify), then delete this file; OneSeek writes it again.",
        )
    return text


def first_hash(ledger: Path) -> str | None:
    """Return the hash of the first line of the file `ledger`; None if there is no whole line."""
    try:
        with open_regular(ledger) as file:
            line = file.readline(MAX_LINE_BYTES + 1)
    except FileNotFoundError:
        return None
    return sha256_of(line[:-1]) if line.endswith(b"\n") else None


def check_present(folder: Path, ledger: Path) -> None:
    """Raise `LedgerError` if a first entry is recorded beside `folder` but the file `ledger` holds none."""
    if read_origin(folder) is not None and first_hash(ledger) is None:
        raise LedgerError(
            ledger, f"the ledger was removed: {origin_file(folder).name} records its first entry", RESTORE
        )


def check_origin(folder: Path, ledger: Path) -> None:
    """Raise `LedgerError` unless the file `ledger` begins with the entry recorded beside `folder`."""
    noted = read_origin(folder)
    if noted is None or first_hash(ledger) == noted:
        return
    note = origin_file(folder)
    raise LedgerError(
        ledger,
        f"the ledger was exchanged: {note.name} records another first entry",
        f"Restore the original ledger. To continue with this one, delete {note}",
    )


def note_origin(folder: Path, ledger: Path) -> None:
    """Record the first entry of the file `ledger`, unless one is recorded."""
    if read_origin(folder) is None and (found := first_hash(ledger)) is not None:
        write_file(origin_file(folder), f"{found}\n", 0o644)
