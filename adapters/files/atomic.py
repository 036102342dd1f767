"""Files and folders that are whole or not there: written under a temporary name, flushed, renamed.

A temporary name begins with a dot and ends in `.tmp`; it stands beside the final one, so the rename is
atomic. A writer that is killed leaves such a name behind; whoever holds the lock of the place may clear it.
Everything that replaces or renames a file or a folder does it here, so that everything waits for Windows.
"""

from __future__ import annotations

import os
import re
import shutil
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from pathlib import Path

from adapters.files.full import naming

_SUFFIX = ".tmp"
_OLD = ".old"
_PAUSES = (0.01, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8)
"""Seconds between attempts at what Windows may refuse for a moment: 1.6 in all."""

_unfinished: set[Path] = set()
"""What this process writes at present."""


@contextmanager
def staged_file(target: Path) -> Generator[Path]:
    """A path to write a file to, which becomes `target` when the block ends, in the place of an old one."""
    made = _make_parents(target.parent)
    temporary = _beside(target, _SUFFIX)
    _unfinished.add(temporary)
    try:
        with naming(target):
            yield temporary
            flush(temporary)
            replace_file(temporary, target)
    except BaseException:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        _unmake(made)
        raise
    finally:
        _unfinished.discard(temporary)
    flush_folder(target.parent)


@contextmanager
def staged_folder(target: Path, *, replace: bool = False) -> Generator[Path]:
    """An empty folder to fill, which becomes `target` when the block ends; after an error it is gone.

    With `replace` it takes the place of a folder that is there; after an error that one stands again.
    Raises `FileExistsError` if `target` exists without `replace`, `OSError` if its place cannot be written.
    """
    made = _make_parents(target.parent)
    temporary = _beside(target, _SUFFIX)
    _unfinished.add(temporary)
    try:
        if replace:
            _recover(target)
        temporary.mkdir()
        with naming(target):
            yield temporary
            flush_tree(temporary)
        if replace:
            _swap(temporary, target)
        elif target.exists():
            raise FileExistsError(f"{target} exists")
        else:
            rename_folder(temporary, target)
    except BaseException:
        _discard(temporary)
        _unmake(made)
        raise
    finally:
        _unfinished.discard(temporary)
    flush_folder(target.parent)


def write_file(target: Path, data: bytes | str, mode: int = 0o666) -> None:
    """Put `data`, text as UTF-8, in the place of `target`; it is on the disk when this returns.

    The umask narrows `mode`, and at no moment has the file a wider one.
    """
    with staged_file(target) as temporary:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)
        with os.fdopen(os.open(temporary, flags, mode), "wb") as file:
            file.write(data.encode() if isinstance(data, str) else data)


def remove_folder(folder: Path) -> None:
    """Delete `folder` so that at no moment a part of it stands under its name."""
    temporary = _beside(folder, _SUFFIX)
    rename_folder(folder, temporary)
    flush_folder(folder.parent)
    shutil.rmtree(temporary)


def replace_file(source: Path, target: Path) -> None:
    """Put `source` in the place of `target`. On Windows it waits for those who have either open."""
    _patiently(lambda: source.replace(target))


def rename_folder(source: Path, target: Path) -> None:
    """Rename a folder. On Windows it waits for those who have a file in it open, such as a virus scanner."""
    _patiently(lambda: source.rename(target))


def clear_leftovers(place: Path) -> None:
    """Delete what killed writers left in `place`. Only for the one writer that may be there."""
    for path in place.glob(f".*{_SUFFIX}"):
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path, ignore_errors=True)
        else:
            path.unlink(missing_ok=True)


@contextmanager
def discard_at_exit(path: Path) -> Generator[None]:
    """Have `discard_unfinished` delete `path` too while the block runs."""
    _unfinished.add(path)
    try:
        yield
    finally:
        _unfinished.discard(path)


def discard_unfinished() -> None:
    """Delete what this process has begun to write, whoever writes it; only for a process about to end."""
    for path in list(_unfinished):
        shutil.rmtree(path, ignore_errors=True)
        with suppress(OSError):
            path.unlink(missing_ok=True)


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


def _swap(new: Path, target: Path) -> None:
    """Put the folder `new` in the place of `target`, or leave `target` as it was."""
    old = _beside(target, _OLD)
    try:
        rename_folder(target, old)
    except FileNotFoundError:
        rename_folder(new, target)
        return
    try:
        rename_folder(new, target)
    except BaseException as problem:
        try:
            rename_folder(old, target)
        except OSError:
            problem.add_note(f"The folder that was at {target} is now {old}; rename it back.")
        raise
    _discard(old)


def _discard(folder: Path) -> None:
    """Delete a folder that nobody needs; what resists twice is left to the next writer."""
    with suppress(OSError):
        _patiently(lambda: shutil.rmtree(folder))
    shutil.rmtree(folder, ignore_errors=True)


def _recover(target: Path) -> None:
    """Undo what a process that was killed in `_swap` left: put the old folder back, or delete it."""
    name = re.compile(rf"\.{re.escape(target.name)}\.[0-9a-f]{{12}}{re.escape(_OLD)}")
    for path in target.parent.iterdir():
        if not name.fullmatch(path.name):
            continue
        if target.exists():
            _discard(path)
        else:
            rename_folder(path, target)


def _patiently(change: Callable[[], object]) -> None:
    """Windows refuses to move what somebody has open, and a reader is done in a moment; others never do."""
    for pause in _PAUSES if sys.platform == "win32" else ():
        try:
            change()
            return
        except PermissionError:
            time.sleep(pause)
    change()


def _beside(target: Path, suffix: str) -> Path:
    return target.with_name(f".{target.name}.{os.urandom(6).hex()}{suffix}")


def _make_parents(folder: Path) -> list[Path]:
    """Make `folder` and what is above it, to last. Return what was missing, deepest first."""
    missing = [path for path in (folder, *folder.parents) if not path.exists()]
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for path in reversed(missing):
            flush_folder(path.parent)
    except BaseException:
        _unmake(missing)
        raise
    return missing


def _unmake(made: list[Path]) -> None:
    """Delete the folders of `_make_parents` that are there and still empty."""
    with suppress(OSError):
        for folder in made:
            if folder.exists():
                folder.rmdir()
