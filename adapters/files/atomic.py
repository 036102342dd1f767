"""Files and folders that are whole or not there: written under a temporary name, flushed, renamed.

A temporary name begins with a dot and ends in `.tmp`; it stands beside the final one, so the rename is
atomic. A writer that is killed leaves such a name behind. Whoever holds the lock of the place may clear it.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path

_SUFFIX = ".tmp"
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts at what Windows may refuse for a moment: 1.6 in all."""


@contextmanager
def staged_folder(target: Path) -> Generator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends; after an error it is gone.

    Raises `FileExistsError` where `target` is there by then, `OSError` where its place cannot be written.
    """
    _make_parents(target.parent)
    temporary = _temporary(target)
    temporary.mkdir()
    try:
        yield temporary
        flush_tree(temporary)
        if target.exists():
            raise FileExistsError(f"{target} exists")
        rename_folder(temporary, target)
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise
    flush_folder(target.parent)


@contextmanager
def staged_file(target: Path) -> Generator[Path]:
    """A path to write a file to, which becomes `target` when the block ends, in the place of an old one."""
    _make_parents(target.parent)
    temporary = _temporary(target)
    try:
        yield temporary
        flush(temporary)
        replace_file(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    flush_folder(target.parent)


def remove_folder(folder: Path) -> None:
    """Delete `folder` so that at no moment a part of it stands under its name."""
    temporary = _temporary(folder)
    rename_folder(folder, temporary)
    flush_folder(folder.parent)
    shutil.rmtree(temporary)


def replace_file(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`. On Windows it waits for those who have either open."""
    _patiently(lambda: source.replace(target))


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder. On Windows it waits for those who have a file in it open, such as a virus scanner."""
    _patiently(lambda: source.rename(target))


def _patiently(change: Callable[[], object]) -> None:
    """Windows refuses to move what somebody has open, and a reader is done in a moment; others never do."""
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            change()
            return
        except PermissionError:
            time.sleep(pause)
    change()


def clear_leftovers(place: Path) -> None:
    """Delete what killed writers left in `place`. Only for the one writer that may be there."""
    for path in place.glob(f".*{_SUFFIX}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


def _temporary(target: Path) -> Path:
    return target.with_name(f".{target.name}.{uuid.uuid4().hex}{_SUFFIX}")


def _make_parents(folder: Path) -> None:
    """Make `folder` and what is above it, so that the new names last."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    folder.mkdir(parents=True, exist_ok=True)
    for path in reversed(missing):
        flush_folder(path.parent)


def flush_tree(folder: Path) -> None:
    """Bring all files in `folder`, and their names, to the disk."""
    for path in sorted(folder.rglob("*"), reverse=True):
        if path.is_dir():
            flush_folder(path)
        else:
            flush(path)
    flush_folder(folder)


def flush(path: Path) -> None:
    """Bring a file's bytes to the disk."""
    with path.open("rb+") as file:
        os.fsync(file.fileno())


def flush_folder(folder: Path) -> None:
    """Make the names in `folder` last. Windows does that by itself and has no call for it."""
    if os.name != "posix":
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
