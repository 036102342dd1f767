"""Restore a backup. All of its contents are checked before the first folder is moved into OneSeek's home."""

from __future__ import annotations

import hashlib
import os
import shutil
import tarfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from adapters.backup.check import CheckedHome, check_contents
from adapters.backup.manifest import (
    LOCKS,
    MANIFEST_FILE,
    MAX_MANIFEST,
    PARTS,
    BackedUpFile,
    BackupError,
    BackupManifest,
)
from adapters.files.atomic import flush_tree, rename_folder
from adapters.files.regular import open_regular
from adapters.files.scratch import scratch_folder
from adapters.home import FORMAT, check_home, mark_home
from adapters.ledger.keys import PublicKey

_ANOTHER = "Use another backup."
_PIECE = 1 << 20
"""Number of bytes that are copied at a time."""


@dataclass(frozen=True, slots=True)
class Restored:
    """The result of a restore."""

    home: Path
    manifest: BackupManifest
    contents: CheckedHome
    changed: bool
    """False if the home already held everything in the backup."""


def restore_backup(file: Path, home: Path, *, public_key: PublicKey | Path | None = None) -> Restored:
    """Restore the backup `file` into `home`, which must not hold another registry, ledger or keys.

    Before any folder is moved into `home`, every file's SHA-256 is compared with `backup.json`, every adapter
    version is read, and the ledger is verified, with `public_key` if it is given. To continue an interrupted
    restore, start it again. Raises `BackupError` if the backup is damaged or `home` holds other contents,
    `HomeError` if `home` has a newer format, and `OSError`.
    """
    check_home(home)
    existed = home.is_dir()
    try:
        with scratch_folder(home / ".restore") as scratch:
            manifest = _unpack(file, scratch)
            contents = check_contents(scratch, public_key, file)
            if contents.ledger_last != manifest.ledger_last:
                raise BackupError(
                    file,
                    f"the backup's ledger ends in {contents.ledger_last}, but {MANIFEST_FILE} names another "
                    "entry",
                    _ANOTHER,
                )
            missing = [part for part in _parts(manifest) if not _is_there(home, part, manifest)]
            flush_tree(scratch)
            for part in missing:
                shutil.rmtree(home / part, ignore_errors=True)
                rename_folder(scratch / part, home / part)
        mark_home(home)
    except BaseException:
        if not existed:
            with suppress(OSError):
                home.rmdir()
        raise
    return Restored(home, manifest, contents, bool(missing))


def _parts(manifest: BackupManifest) -> list[str]:
    held = {one.part for one in manifest.files}
    return [part for part in PARTS if part in held]


def _is_there(home: Path, part: str, manifest: BackupManifest) -> bool:
    """Return True if `home` already holds the backup's folder `part`. Raises `BackupError` if that folder
    differs from the backup's.
    """
    folder = home / part
    if not folder.is_dir() or not any(path.name not in LOCKS for path in folder.iterdir()):
        return False
    wanted = {one.path: one for one in manifest.files if one.part == part}
    for one in wanted.values():
        if not _is_same(home / one.path, one):
            raise BackupError(
                folder,
                "this folder of OneSeek's home exists, and differs from the backup",
                "Restore into another folder with --home PATH, or move this folder away first.",
            )
    return True


def _is_same(path: Path, one: BackedUpFile) -> bool:
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest() == one.sha256
    except OSError:
        return False


def _unpack(file: Path, folder: Path) -> BackupManifest:
    """Write every file of the backup to `folder`, and check its size and SHA-256. Returns the contents of
    `backup.json`. Raises `BackupError` for a damaged backup.
    """
    try:
        with open_regular(file) as raw, tarfile.open(fileobj=raw, mode="r:gz") as tar:
            members = iter(tar)
            manifest = _read_manifest(file, tar, members)
            wanted = {one.path: one for one in manifest.files}
            for member in members:
                _write(file, tar, member, wanted, folder)
                del wanted[member.name]
    except (tarfile.TarError, EOFError, zlib.error, OSError) as error:
        if isinstance(error, OSError) and error.errno is not None:
            raise
        raise BackupError(file, f"the file is not a backup, or is damaged ({error})", _ANOTHER) from error
    if wanted:
        raise BackupError(
            file,
            f"the backup lacks {len(wanted)} of the files that it lists, such as {next(iter(wanted))}",
            _ANOTHER,
        )
    return manifest


def _read_manifest(file: Path, tar: tarfile.TarFile, members: Iterator[tarfile.TarInfo]) -> BackupManifest:
    first = next(members, None)
    if first is None or first.name != MANIFEST_FILE or not first.isreg() or first.size > MAX_MANIFEST:
        raise BackupError(
            file, f"the archive does not begin with {MANIFEST_FILE}, so it is not a backup", _ANOTHER
        )
    manifest = BackupManifest.from_bytes(_contents(tar, first).read(), file)
    if manifest.home_format > FORMAT:
        raise BackupError(
            file,
            f"the backed-up home has format {manifest.home_format}, but OneSeek reads up to {FORMAT}",
            "The backup is newer than this OneSeek: restore it with a newer OneSeek.",
        )
    return manifest


def _write(
    file: Path,
    tar: tarfile.TarFile,
    member: tarfile.TarInfo,
    wanted: Mapping[str, BackedUpFile],
    folder: Path,
) -> None:
    one = wanted.get(member.name)
    if one is None or not member.isreg() or member.size != one.size:
        raise BackupError(
            file,
            f"{MANIFEST_FILE} does not list this file of the archive, or lists another size",
            _ANOTHER,
            field="member",
            value=member.name,
        )
    path = folder / one.path
    path.parent.mkdir(parents=True, exist_ok=True)
    digest, source = hashlib.sha256(), _contents(tar, member)
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600 if one.private else 0o644)
    with os.fdopen(descriptor, "wb") as target:
        while piece := source.read(_PIECE):
            digest.update(piece)
            target.write(piece)
    if digest.hexdigest() != one.sha256:
        raise BackupError(
            file, f"the SHA-256 of {one.path} in the backup is not the one in backup.json", _ANOTHER
        )


def _contents(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    found = tar.extractfile(member)
    assert found is not None  # it is a regular file
    return found
