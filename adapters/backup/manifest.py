"""The manifest of a backup: the file `backup.json`, which comes first in the archive."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, cast

from adapters.errors import FileRefusedError
from adapters.ledger.ledger import LOCK_FILE
from adapters.registry.registry import LOCK_NAME

BACKUP_FORMAT = 1
"""Version of the backup archive's format. Increase it if an older OneSeek would misread a newer backup."""
MANIFEST_FILE = "backup.json"
MAX_MANIFEST = 64 * 1024 * 1024
"""Maximum size of `backup.json` in bytes, enough for about 400,000 files."""
PARTS = ("keys", "ledger", "registry")
"""Folders of OneSeek's home that a backup contains, in the order in which they are restored.

ONNX graphs and caches are left out, because the server builds them again.
"""

LOCKS = frozenset({LOCK_FILE, LOCK_NAME})
"""Names of lock files, which are not backed up."""

_DIGEST = re.compile("[0-9a-f]{64}")


class BackupError(FileRefusedError):
    """A backup cannot be made or restored. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class BackedUpFile:
    """One file in the backup of OneSeek's home."""

    path: str
    """Path of the file relative to OneSeek's home, with `/` between its parts."""
    size: int
    """Size of the file in bytes."""
    sha256: str
    """SHA-256 of the file as 64 hex digits."""
    private: bool
    """True if only the file's owner may read it."""

    @property
    def part(self) -> str:
        """Top-level folder of the home that holds the file: `keys`, `ledger` or `registry`."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """The contents of a backup's `backup.json`: where the backup comes from, its ledger's state and its
    files.
    """

    oneseek: str
    """Version of OneSeek that made the backup."""
    created: str
    """Time of the backup in UTC, ISO 8601."""
    home_format: int
    """Version of the layout of the home folder that was backed up, from the home's file `format`."""
    ledger_entries: int
    ledger_last: str | None
    """Hash of the ledger's last entry; None if the home has no ledger."""
    files: tuple[BackedUpFile, ...]

    def to_bytes(self) -> bytes:
        """Return the contents of `backup.json` as JSON bytes."""
        files = [
            {"path": one.path, "size": one.size, "sha256": one.sha256, "private": one.private}
            for one in self.files
        ]
        fields = {
            "format": BACKUP_FORMAT,
            "oneseek": self.oneseek,
            "created": self.created,
            "home_format": self.home_format,
            "ledger": {"entries": self.ledger_entries, "last": self.ledger_last},
            "files": files,
        }
        return json.dumps(fields, indent=1).encode() + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes, file: Path) -> BackupManifest:
        """Parse `data`, the contents of `backup.json`. `file` is the backup's path, for errors. Raises
        `BackupError` for damaged contents or an unknown format.
        """
        try:
            found = cast("dict[str, Any]", json.loads(data))
            if found["format"] != BACKUP_FORMAT:
                raise BackupError(
                    file,
                    f"the backup has format {found['format']}, but OneSeek reads format {BACKUP_FORMAT}",
                    "The backup is newer than this OneSeek: restore it with a newer OneSeek.",
                )
            ledger = cast("dict[str, Any]", found["ledger"])
            return cls(
                oneseek=str(found["oneseek"]),
                created=str(found["created"]),
                home_format=int(found["home_format"]),
                ledger_entries=int(ledger["entries"]),
                ledger_last=None if ledger["last"] is None else str(ledger["last"]),
                files=tuple(_file(one, file) for one in cast("list[dict[str, Any]]", found["files"])),
            )
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            if isinstance(error, BackupError):
                raise
            raise BackupError(
                file,
                f"the backup's {MANIFEST_FILE} is damaged ({type(error).__name__}: {error})",
                "Use another backup.",
            ) from error


def _file(found: dict[str, Any], file: Path) -> BackedUpFile:
    one = BackedUpFile(str(found["path"]), int(found["size"]), str(found["sha256"]), bool(found["private"]))
    path = PurePosixPath(one.path)
    plain = str(path) == one.path and not path.is_absolute() and ".." not in path.parts
    if not plain or "\\" in one.path or ":" in one.path or one.part not in PARTS or len(path.parts) < 2:
        raise BackupError(
            file,
            f"the backup's {MANIFEST_FILE} names a file outside of {', '.join(PARTS)}",
            "Use another backup.",
            field="path",
            value=one.path,
        )
    if one.size < 0 or not _DIGEST.fullmatch(one.sha256):
        raise BackupError(
            file,
            "the backup's backup.json gives this file an invalid size or SHA-256",
            "Use another backup.",
            field=one.path,
        )
    return one
