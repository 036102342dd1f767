"""Write a backup of OneSeek's home: a gzipped tar archive whose first file is `backup.json`."""

from __future__ import annotations

import hashlib
import io
import os
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from adapters.backup.check import CheckedHome, check_contents
from adapters.backup.manifest import LOCKS, MANIFEST_FILE, PARTS, BackedUpFile, BackupError, BackupManifest
from adapters.files.atomic import staged_file
from adapters.files.regular import open_regular
from adapters.home import check_home, read_format
from adapters.ledger.ledger import Ledger
from adapters.ledger.verify import KEY_FILE, NEXT_FILE
from adapters.registry.registry import Registry
from adapters.version import oneseek_version

_SECRETS = frozenset({f"ledger/{KEY_FILE}", f"ledger/{NEXT_FILE}"})


@dataclass(frozen=True, slots=True)
class Backup:
    """The result of a backup."""

    file: Path
    manifest: BackupManifest
    contents: CheckedHome

    @property
    def size(self) -> int:
        """Total size of the backed-up files in bytes, before compression."""
        return sum(one.size for one in self.manifest.files)


def write_backup(home: Path, file: Path, *, keys: bool = True) -> Backup:
    """Write a consistent backup of the registry, the ledger and the keys in `home` to `file`.

    Every adapter version is hashed and the ledger is verified first. The registry and the ledger are locked
    until the backup is written: a running server continues to serve, and changes wait. If `keys` is False,
    the signing key and the API keys are left out. Raises `BackupError` if `file` exists, if there is nothing
    to back up, or if the home is damaged; also `HomeError`, `RegistryError`, `LedgerError` and `OSError`.
    After an error, no incomplete backup is left.
    """
    if os.path.lexists(file):
        raise BackupError(file, "the backup's file already exists", "Give the name of a new file.")
    check_home(home)
    if not any((home / part).is_dir() for part in PARTS):
        raise BackupError(
            home,
            "the folder does not hold a registry or a ledger, so there is nothing to back up",
            "Name the folder of OneSeek's home with --home PATH.",
        )
    with Registry(home).unchanging(), Ledger.open(home / "ledger").unchanging():
        contents = check_contents(home, None, home)
        found = tuple(_describe(home, path) for path in _files(home, keys=keys))
        manifest = BackupManifest(
            oneseek=oneseek_version(),
            created=datetime.now(UTC).isoformat(timespec="seconds"),
            home_format=read_format(home),
            ledger_entries=contents.ledger_entries,
            ledger_last=contents.ledger_last,
            files=found,
        )
        with staged_file(file) as staged:
            descriptor = os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with (
                os.fdopen(descriptor, "wb") as raw,
                tarfile.open(fileobj=raw, mode="w:gz", compresslevel=1) as tar,
            ):
                _pack(tar, home, manifest)
    return Backup(file, manifest, contents)


def _files(home: Path, *, keys: bool) -> Iterator[Path]:
    """Yield the regular files to back up, in order. Lock files and unfinished files are left out."""
    for part in PARTS:
        for folder, folders, names in os.walk(home / part):
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            for name in sorted(names):
                path = Path(folder, name)
                relative = path.relative_to(home).as_posix()
                secret = relative in _SECRETS or part == "keys"
                if name in LOCKS or name.startswith(".") or path.is_symlink() or (secret and not keys):
                    continue
                yield path


def _describe(home: Path, path: Path) -> BackedUpFile:
    with open_regular(path) as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    found = path.stat()
    private = found.st_mode & 0o077 == 0
    return BackedUpFile(path.relative_to(home).as_posix(), found.st_size, digest, private)


def _pack(tar: tarfile.TarFile, home: Path, manifest: BackupManifest) -> None:
    data = manifest.to_bytes()
    head = tarfile.TarInfo(MANIFEST_FILE)
    head.size, head.mode = len(data), 0o600
    tar.addfile(head, io.BytesIO(data))
    for one in manifest.files:
        entry = tarfile.TarInfo(one.path)
        entry.size, entry.mode = one.size, 0o600 if one.private else 0o644
        with open_regular(home / one.path) as file:
            tar.addfile(entry, file)
