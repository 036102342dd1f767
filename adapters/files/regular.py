"""Open files that other users may have made: only regular files, and without blocking on a pipe or device."""

from __future__ import annotations

import errno
import os
import shutil
import stat
from io import BufferedReader
from pathlib import Path

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


def open_regular(path: Path) -> BufferedReader:
    """Open a regular file for reading. Raises `OSError` at once for a pipe, socket, device or folder.

    Opening a pipe without a writer would otherwise wait for ever.
    """
    _refuse_special(path.stat().st_mode, path)
    handle = os.open(path, _FLAGS)
    try:
        _refuse_special(os.fstat(handle).st_mode, path)
        return open(handle, "rb")  # noqa: PTH123 - a handle is no path, and the caller closes it
    except BaseException:
        os.close(handle)
        raise


def read_regular(path: Path, limit: int) -> bytes:
    """Read at most `limit` bytes of a regular file. Raises the errors of `open_regular`."""
    with open_regular(path) as file:
        return file.read(limit)


def copy_regular(source: Path, target: Path) -> None:
    """Copy a regular file to the new file `target`. Raises the errors of `open_regular`."""
    with open_regular(source) as opened, target.open("xb") as file:
        shutil.copyfileobj(opened, file, 1 << 20)


def _refuse_special(mode: int, path: Path) -> None:
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file, but a folder, pipe, socket or device", str(path))
