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
"""Version of the archive's format. Raise it if an older OneSeek would misread a newer backup."""
MANIFEST_FILE = "backup.json"
MAX_MANIFEST = 64 * 1024 * 1024
"""Maximum size of `backup.json` in bytes, enough for about 400,000 files."""
PARTS = ("keys", "ledger", "registry")
"""Folders of a home that a backup holds, in the order in which they are restored.

Graphs and caches are left out, since they are built again."""

LOCKS = frozenset({LOCK_FILE, LOCK_NAME})
"""Names of lock files, which are not backed up."""

_DIGEST = re.compile("[0-9a-f]{64}")


class BackupError(FileRefusedError):
    """A backup cannot be made or restored. Nothing was changed."""


@dataclass(frozen=True, slots=True)
class BackedUpFile:
    """One file in the backup of a home."""

    path: str
    """Path relative to the home, with `/` between its parts."""
    size: int
    """Size of the file in bytes."""
    sha256: str
    """SHA-256 of the file as 64 hex digits."""
    private: bool
    """True if only the file's owner may read it."""

    @property
    def part(self) -> str:
        """Name of the home's folder that the file is in."""
        return self.path.partition("/")[0]


@dataclass(frozen=True, slots=True)
class BackupManifest:
    """The list of everything in a backup."""

    oneseek: str
    """Version of OneSeek that made the backup."""
    created: str
    """Time of the backup in UTC, ISO 8601."""
    home_format: int
    """Format of the home, as `adapters.home` counts it."""
    ledger_entries: int
    ledger_last: str | None
    """Hash of the ledger's last entry; None without a ledger."""
    files: tuple[BackedUpFile, ...]

    def to_bytes(self) -> bytes:
        """Return the contents of `backup.json`."""
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
        """Read what `to_bytes` wrote into the backup `file`. Raises `BackupError`."""
        try:
            found = cast("dict[str, Any]", json.loads(data))
            if found["format"] != BACKUP_FORMAT:
                reason = f"is a backup of format {found['format']}, and this OneSeek reads {BACKUP_FORMAT}"
                raise BackupError(file, reason, "Restore it with a newer OneSeek.")
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
            reason = f"its {MANIFEST_FILE} is damaged ({type(error).__name__}: {error})"
            raise BackupError(file, reason, "Use another backup.") from error


def _file(found: dict[str, Any], file: Path) -> BackedUpFile:
    one = BackedUpFile(str(found["path"]), int(found["size"]), str(found["sha256"]), bool(found["private"]))
    path = PurePosixPath(one.path)
    plain = str(path) == one.path and not path.is_absolute() and ".." not in path.parts
    if not plain or "\\" in one.path or ":" in one.path or one.part not in PARTS or len(path.parts) < 2:
        reason = f"{MANIFEST_FILE} names a file outside of {', '.join(PARTS)}"
        raise BackupError(file, reason, "Use another backup.", field="path", value=one.path)
    if one.size < 0 or not _DIGEST.fullmatch(one.sha256):
        raise BackupError(
            file, "lists a file with an invalid size or hash", "Use another backup.", field=one.path
        )
    return one
