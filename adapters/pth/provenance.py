"""Compute one digest of the training records of an older OneSeek installation, for the ledger entry of an
import.
"""

from __future__ import annotations

import hashlib
from pathlib import Path

from adapters.errors import LedgerError
from adapters.files.regular import open_regular

ROLE = "provenance"
"""Name under which the ledger entry of an import stores the digest of the old training records."""
MAX_FILES = 10_000


def provenance_digest(place: Path) -> str:
    r"""Return `sha256:…` of the file `place`. If it is a folder, return `sha256:…` of the list of its files'
    hashes, sorted by name.

    In the folder, this command prints the same value: `find . -type f | LC_ALL=C sort | xargs -d '\n'
    sha256sum | sha256sum`. Links are skipped. Raises `LedgerError` if a file cannot be read, or the folder
    holds more than 10,000 files (`MAX_FILES`).
    """
    try:
        if not place.is_dir():
            return f"sha256:{_hash(place)}"
        files = sorted(
            (path.relative_to(place).as_posix() for path in _files(place)), key=lambda name: name.encode()
        )
        lines = (f"{_hash(place / name)}  ./{name}\n" for name in files)
        return f"sha256:{hashlib.sha256(''.join(lines).encode()).hexdigest()}"
    except OSError as problem:
        raise LedgerError(
            place,
            f"the old training records cannot be read ({problem.strerror})",
            "Check that the path exists and that you may read it.",
        ) from problem


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found.append(path)
        if len(found) > MAX_FILES:
            raise LedgerError(
                folder,
                f"the folder holds more than {MAX_FILES} files",
                "Give only the folder with the old training records.",
            )
    return found


def _hash(file: Path) -> str:
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
