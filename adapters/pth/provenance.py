"""Record what an existing installation noted of its training as one digest that the ledger can refer to."""

from __future__ import annotations

import hashlib
from pathlib import Path

from adapters.errors import LedgerError
from adapters.files.regular import open_regular

ROLE = "provenance"
"""Role of the digest in the ledger's entry of an import."""
MAX_FILES = 10_000


def provenance_digest(place: Path) -> str:
    r"""Return `sha256:…` of a file, or of the list that `sha256sum` writes for a folder's files, sorted by
    name.

    For a folder, this command in it gives the same: `find . -type f | LC_ALL=C sort | xargs -d '\n' sha256sum
    | sha256sum`. Links are skipped. Raises `LedgerError` if a file cannot be read, or there are more than
    `MAX_FILES`.
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
        reason = f"cannot be read ({problem.strerror})"
        raise LedgerError(place, reason, "Check the path and its permissions.") from problem


def _files(folder: Path) -> list[Path]:
    found: list[Path] = []
    for path in folder.rglob("*"):
        if path.is_file() and not path.is_symlink():
            found.append(path)
        if len(found) > MAX_FILES:
            reason = f"holds more than {MAX_FILES} files"
            raise LedgerError(folder, reason, "Give only the folder of the old ledger.")
    return found


def _hash(file: Path) -> str:
    with open_regular(file) as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
