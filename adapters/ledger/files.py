"""Writing so that a crash at any moment, of the process or the machine, leaves the old state or the new."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from adapters.files.atomic import flush_folder, replace_file


def write_whole(path: Path, data: bytes, mode: int = 0o644) -> None:
    """Put `data` in the place of `path` at once; on the disk when this returns. The umask narrows `mode`."""
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(6)}.tmp")
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0), mode)
        with os.fdopen(handle, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        replace_file(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    flush_folder(path.parent)
